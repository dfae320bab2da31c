//! Which shader files the kernels of a case are made of, as a file: who has changed one finds the cases that see it first.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::case::Case;
use crate::Refusal;

/// A line for each case and file.
pub fn write<'r>(
    path: &Path,
    cases: impl Iterator<Item = (&'r str, &'r BTreeSet<String>)>,
) -> Result<(), Refusal> {
    let lines = cases.flat_map(|(case, files)| files.iter().map(move |file| format!("{file}\t{case}\n")));
    let text: String = lines.collect();
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The cases that reach a file before the others.
pub fn sort(cases: &mut [Case], path: &Path, shader: &str) -> Result<(), Refusal> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let of_shader = |line: &'_ str| {
        line.split_once('\t').filter(|(file, _)| *file == shader).map(|(_, case)| case.to_owned())
    };
    let reached: HashSet<String> = text.lines().filter_map(of_shader).collect();
    if reached.is_empty() {
        return Err(format!("{} has no case that reaches {shader}", path.display()).into());
    }
    cases.sort_by_key(|case| !reached.contains(&case.name));
    Ok(())
}
