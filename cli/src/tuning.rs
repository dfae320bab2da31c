//! Pinned plans on the command line: a file of them, and what came of reading it.

use std::path::Path;

use wgnorm::Context;
use wgnorm::tuning::Autotuning;

use crate::Refusal;

/// The context with the pinned plans of a file, which need not exist yet where plans are measured.
pub fn with_file(context: &Context, measure: bool, file: Option<&Path>) -> Result<Context, Refusal> {
    let mode = match file {
        _ if measure => Autotuning::Measure,
        Some(_) => Autotuning::Pinned,
        None => Autotuning::Off,
    };
    let context = context.with_autotuning(mode);
    if let Some(file) = file.filter(|file| !measure || file.exists()) {
        let loaded = context.load_tunings(file)?;
        let ignored = loaded.ignored.len();
        println!("tuning: {} plans from {}, {ignored} lines of no use here", loaded.pinned, file.display());
        let mut reasons: Vec<_> = loaded.ignored.iter().map(|ignored| &ignored.reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            println!("    {reason}");
        }
    }
    Ok(context)
}
