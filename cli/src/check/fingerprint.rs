//! Hashes of results: what proves that a change of the code changes no bit.

use std::fmt::Write;
use std::path::Path;

use wgnorm::Context;

use crate::Refusal;
use crate::report::Adapter;

/// The hash of one output.
#[derive(Clone)]
pub struct Fingerprint {
    /// Which output: layout, variant and name, separated by tabs.
    pub place: String,
    pub hash: u64,
}

/// FNV-1a over the bits of the values. All NaNs are one: which operand's sign and payload a NaN carries is the processor's
/// choice (that of the first operand on x86), so the same kernel with its sums turned around would differ in them alone.
pub fn hash(values: &[f32]) -> u64 {
    values
        .iter()
        .map(|&value| if value.is_nan() { f32::NAN } else { value })
        .flat_map(|value| value.to_bits().to_le_bytes())
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// A line for each output, in order, below the machine whose bits they are: other adapters, drivers and widths of vectors round,
/// and are planned for, in other ways.
pub fn write(
    path: &Path,
    context: &Context,
    cases: impl Iterator<Item = (String, Vec<Fingerprint>)>,
) -> Result<(), Refusal> {
    let info = context.device().adapter_info();
    let mut lines: Vec<String> = cases
        .flat_map(|(case, prints)| {
            prints.into_iter().map(move |print| format!("{case}\t{}\t{:016x}", print.place, print.hash))
        })
        .collect();
    lines.sort();
    let mut text = format!("# {}\n", Adapter::of_context(context));
    writeln!(text, "# subgroups of {} to {}", info.subgroup_min_size, info.subgroup_max_size)?;
    lines.iter().for_each(|line| text += &format!("{line}\n"));
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}
