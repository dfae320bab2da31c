//! Which of WGSL's built-in functions lose NaN on a device: the language leaves that open, so kernels must do without what these make of it.

use crate::base::error::Result;
use crate::engine::context::Context;
use crate::engine::probe::run_over;

/// Expressions of a NaN `x` and of `one` and `other`, which are 1, none of which a compiler knows. A selection of what is compared with is a maximum to some.
const EXPRESSIONS: [&str; 16] = [
    "x + one",
    "x * one",
    "fma(x, one, one)",
    "abs(x)",
    "sqrt(x)",
    "inverseSqrt(x)",
    "exp(x)",
    "tanh(x)",
    "log(x)",
    "floor(x)",
    "max(x, one)",
    "max(one, x)",
    "min(x, one)",
    "clamp(x, -one, one)",
    "select(x, one, x <= one)",
    "select(x, other, x <= one)",
];

/// What the kernels rest on: the arithmetic, and that a comparison with NaN is false.
const NEEDED: [&str; 5] =
    ["x + one", "x * one", "fma(x, one, one)", "inverseSqrt(x)", "select(x, other, x <= one)"];

/// What a device makes of NaN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostNans {
    /// Expressions of a NaN `x` and a number that are numbers, and that kernels use with care or not at all.
    pub harmless: Vec<&'static str>,
    /// Those that kernels need to keep it.
    pub harmful: Vec<&'static str>,
}

/// Which expressions of NaN are none on the device of a context.
///
/// # Errors
/// Those of an allocation and of compiling.
pub async fn lost_nans(context: &Context) -> Result<LostNans> {
    let lines: Vec<_> = EXPRESSIONS
        .iter()
        .enumerate()
        .map(|(i, expression)| format!("    found[{i}] = bitcast<u32>({expression});\n"))
        .collect();
    let wgsl = format!(
        "@group(0) @binding(0) var<storage, read_write> found: array<u32>;\n\
         @compute @workgroup_size(1)\n\
         fn nans() {{\n    \
             let x = bitcast<f32>(found[0]);\n    \
             let one = bitcast<f32>(found[1]);\n    \
             let other = bitcast<f32>(found[2]);\n{}}}\n",
        lines.concat()
    );
    let mut words = [0; EXPRESSIONS.len()];
    words[0] = f32::NAN.to_bits();
    words[1..3].fill(1.0_f32.to_bits());
    let found = run_over(context, "nans", wgsl, &[], 1, &words).await?;
    let lost = EXPRESSIONS.into_iter().zip(found).filter(|(_, word)| !f32::from_bits(*word).is_nan());
    let (harmful, harmless) = lost.map(|(expression, _)| expression).partition(|it| NEEDED.contains(it));
    Ok(LostNans { harmless, harmful })
}

/// Whether arithmetic on the device of a context keeps subnormal numbers; else it takes them for zero, as WGSL allows.
///
/// # Errors
/// Those of an allocation and of compiling.
pub async fn keeps_subnormals(context: &Context) -> Result<bool> {
    let wgsl = "@group(0) @binding(0) var<storage, read_write> found: array<u32>;\n\
                @compute @workgroup_size(1)\n\
                fn twice() {\n    \
                    found[0] = bitcast<u32>(bitcast<f32>(found[0]) * bitcast<f32>(found[1]));\n\
                }\n";
    let found = run_over(context, "twice", wgsl.to_owned(), &[], 1, &[1000, 2.0_f32.to_bits()]).await?;
    Ok(found[0] == 2000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_looked_at() {
        assert!(NEEDED.iter().all(|needed| EXPRESSIONS.contains(needed)));
    }
}
