//! Layouts on the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use wgnorm::Layout;
pub use wgnorm::eval::layout::{ALL, download, memory_dims, rearranged, upload};

/// Parses the name of a layout.
pub fn parser() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(ALL.map(Layout::name))
        .try_map(|name| wgnorm::eval::layout::named(&name).ok_or_else(|| format!("no layout {name:?}")))
}
