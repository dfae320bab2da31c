//! The modules of `shaders/`, parsed once per process.

use std::sync::OnceLock;

use crate::wesl::Package;

static PACKAGE: OnceLock<Package> = OnceLock::new();

#[cfg(not(target_family = "wasm"))]
macro_rules! text {
    ($path:literal) => {
        include_str!(concat!("../../../shaders/", $path, ".wesl"))
    };
}

/// Without comments, which would be downloaded with every page.
#[cfg(target_family = "wasm")]
macro_rules! text {
    ($path:literal) => {{
        const TEXT: &str = include_str!(concat!("../../../shaders/", $path, ".wesl"));
        const LEN: usize = super::strip::len(TEXT);
        const STRIPPED: [u8; LEN] = super::strip::strip(TEXT);
        match std::str::from_utf8(&STRIPPED) {
            Ok(text) => text,
            Err(_) => panic!("a comment ends inside of a character"),
        }
    }};
}

macro_rules! modules {
    ($($path:literal)*) => {
        /// Paths and texts.
        const BUILT_IN: &[(&str, &str)] = &[$(($path, text!($path))),*];
    };
}

modules! {
    "activation/custom"
    "activation/gelu"
    "activation/gelu_tanh"
    "activation/hard_swish"
    "activation/leaky_relu"
    "activation/logistic"
    "activation/none"
    "activation/relu"
    "activation/relu6"
    "activation/sigmoid"
    "activation/silu"
    "activation/tanh"
    "affine/of_place"
    "affine/of_row"
    "affine/of_slice"
    "affine/parameters"
    "curve/erf"
    "curve/fold_alpha"
    "curve/fold_gradients"
    "curve/of_parameters"
    "curve/sums"
    "curve/tanh"
    "curve/words"
    "fold/bare"
    "fold/batch"
    "fold/direction"
    "fold/dx_means"
    "fold/dx_statistics"
    "fold/gradients"
    "fold/lengths"
    "fold/marks"
    "fold/means_alone"
    "fold/merge"
    "fold/mixture"
    "fold/mixture_means"
    "fold/mixture_sums"
    "fold/nodes"
    "fold/own"
    "fold/partials"
    "fold/rank_one"
    "fold/recorded"
    "fold/records_alone"
    "fold/renorm"
    "fold/running"
    "fold/saved"
    "fold/second"
    "fold/slices"
    "fold/statistics"
    "fold/sums"
    "fold/tangents"
    "fold/total"
    "lib/accumulate"
    "lib/bf16"
    "lib/control"
    "lib/dx"
    "lib/dz"
    "lib/exp"
    "lib/f16"
    "lib/from_curve"
    "lib/from_x"
    "lib/from_y"
    "lib/gate"
    "lib/gradient_sums"
    "lib/gradient_words"
    "lib/marked"
    "lib/mask"
    "lib/mixture"
    "lib/moments"
    "lib/normal"
    "lib/operands"
    "lib/packed"
    "lib/params"
    "lib/product_sums"
    "lib/residual"
    "lib/row_scale"
    "lib/second"
    "lib/second_sums"
    "lib/slice_averages"
    "lib/slice_record"
    "lib/spans"
    "lib/squares"
    "lib/stat"
    "lib/statistics"
    "lib/statistics_at"
    "lib/storage_f32"
    "lib/storage_half_x1"
    "lib/storage_half_x4"
    "lib/sum"
    "lib/tangent_words"
    "lib/tangents"
    "lib/tanh"
    "lib/teams"
    "lib/tree"
    "lib/tree_subgroups"
    "lib/word_f32x1"
    "lib/word_f32x4"
    "map/backward"
    "map/copy"
    "map/d_residual"
    "map/dx"
    "map/forward"
    "map/int8"
    "map/own"
    "map/permute"
    "map/rank_one"
    "map/tangents"
    "probe/f16"
    "probe/subgroups"
    "reduce/gradients"
    "reduce/moments"
    "reduce/own"
    "reduce/row_gradients"
    "reduce/squares"
    "reduce/sums"
    "resident/backward"
    "resident/forward"
    "resident/of_channels"
    "resident/of_slices"
    "tensor/absent"
    "tensor/address"
    "tensor/direction"
    "tensor/input"
    "tensor/output"
    "tensor/output_int8"
    "tensor/over"
    "tensor/packed"
    "tensor/parameter"
    "tensor/parameter_gradient"
    "walk/columns"
    "walk/edges"
    "walk/per_component"
    "walk/per_pair"
    "walk/per_slice"
    "walk/segments"
    "walk/strip"
}

/// The modules that kernels are made of.
///
/// # Panics
/// If those that are built in are none, which any test would show.
pub(crate) fn package() -> &'static Package {
    PACKAGE.get_or_init(|| Package::parse(BUILT_IN.iter().copied()).unwrap_or_else(|error| panic!("{error}")))
}

/// The texts of all modules that are built in.
pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(_, text)| *text)
}

/// What a module declares, as WGSL: nothing of it may be imported.
#[cfg(test)]
pub(crate) fn declarations(path: &str) -> String {
    let text = BUILT_IN.iter().find(|(name, _)| *name == path).map_or("", |(_, text)| text);
    text.lines().filter(|line| !line.starts_with("import ")).map(|line| line.to_owned() + "\n").collect()
}

/// Modules from a directory instead of those that are built in: whoever works on a kernel edits and runs again without a build.
#[cfg(all(feature = "eval", not(target_family = "wasm")))]
pub(crate) mod directory {
    use std::path::Path;

    use super::{BUILT_IN, PACKAGE};
    use crate::base::error::{Error, Result};
    use crate::wesl::Package;

    /// Reads all modules; kernels are made of them.
    ///
    /// # Errors
    /// [`Error::File`] if one cannot be read or parsed, or kernels were made before; nothing changes then.
    pub fn read(directory: &Path) -> Result<()> {
        let error =
            |path: &Path, action, reason: String| Error::File { action, path: path.to_owned(), reason };
        let mut files = Vec::new();
        for (name, _) in BUILT_IN {
            let path = directory.join(format!("{name}.wesl"));
            let text = std::fs::read_to_string(&path).map_err(|e| error(&path, "read", e.to_string()))?;
            files.push((*name, text));
        }
        let package = Package::parse(files.iter().map(|(name, text)| (*name, &text[..])))
            .map_err(|e| error(directory, "parse the shaders of", e.to_string()))?;
        let late = "kernels were made of other shaders before".to_owned();
        PACKAGE.set(package).map_err(|_| error(directory, "use the shaders of", late))
    }
}
