//! The page: the table in short, between two marks of a page whose other text is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::Refusal;
use crate::row::Row;
use crate::targets::{TARGETS, Target};

const BEGIN: &str = "<!-- written by `cargo xtask gpus` -->";
const END: &str = "<!-- end -->";

/// Tensors below this are of no interest for bytes in flight: a launch takes longer.
const LARGE: u64 = 8 << 20;
/// Bytes in flight that the largest device wants: 3.35 TB/s times 600 ns.
const WANTED: u64 = 2_000_000;

/// The page with its part between the marks replaced.
pub fn within(path: &Path, part: &str) -> Result<String, Refusal> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let marks = text.find(BEGIN).zip(text.find(END)).filter(|(begin, end)| begin < end);
    let (begin, end) = marks.ok_or_else(|| format!("{}: no marks {BEGIN} and {END}", path.display()))?;
    Ok(format!("{}{BEGIN}\n\n{part}\n{}", &text[..begin], &text[end..]))
}

pub fn page(rows: &[Row]) -> String {
    let present: Vec<&Target> =
        TARGETS.iter().filter(|target| rows.iter().any(|row| row.target.name == target.name)).collect();
    [
        targets(rows, &present),
        loads(rows, &present),
        instructions(rows, &present),
        starved(rows),
        estimates(rows, &present),
    ]
    .join("\n")
}

/// A line of a table.
fn line(text: &mut String, cells: impl IntoIterator<Item = String>) {
    let _ = writeln!(text, "| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}

fn head(text: &mut String, first: &[&str], present: &[&Target]) {
    let names = first.iter().map(|&name| name.to_owned());
    line(text, names.chain(present.iter().map(|target| target.name.to_owned())));
    let _ = writeln!(text, "|{}", "---|".repeat(first.len() + present.len()));
}

/// Kernels of a target, each once.
fn kernels<'r>(rows: &'r [Row], target: &Target) -> BTreeMap<&'r str, &'r Row> {
    rows.iter().filter(|row| row.target.name == target.name).map(|row| (&*row.kernel, row)).collect()
}

fn targets(rows: &[Row], present: &[&Target]) -> String {
    let mut text = "**Kernels of each target**, and those that spill registers.\n\n".to_owned();
    line(&mut text, ["target", "GPU", "kernels", "with spills", "worst"].map(str::to_owned));
    text += "|---|---|---|---|---|\n";
    for target in present {
        let kernels = kernels(rows, target);
        let spills = |row: &Row| row.statistics.spills.unwrap_or(0);
        let worst = kernels.values().max_by_key(|row| spills(row)).filter(|row| spills(row) > 0);
        let cells = [
            target.name.to_owned(),
            target.what.to_owned(),
            kernels.len().to_string(),
            kernels.values().filter(|row| spills(row) > 0).count().to_string(),
            worst.map_or("".to_owned(), |row| format!("{} in `{}`", spills(row), row.kernel)),
        ];
        line(&mut text, cells);
    }
    text
}

/// What a kernel does, and the words that it walks: `map_forward f32x4`.
fn kind(kernel: &str) -> String {
    let entry = kernel.split(['<', ' ']).next().unwrap_or(kernel);
    let walk = if kernel.contains(" columns ") { "columns" } else { "segments" };
    let words = kernel
        .split(' ')
        .find(|word| word.starts_with('f') && word.contains('x') || word.starts_with("bf16x"));
    format!("{entry} {walk} {}", words.unwrap_or_default())
}

/// Kernels that walk tensors: folds have partial results alone.
fn walks(row: &&Row) -> bool {
    !row.kernel.starts_with("fold_")
}

/// A table with a row for each kind of kernel, and a number for each target.
fn by_kind(
    rows: &[Row],
    present: &[&Target],
    title: &str,
    value: impl Fn(&[&Row]) -> Option<String>,
) -> String {
    let mut kinds: BTreeMap<String, BTreeMap<&str, Vec<&Row>>> = BTreeMap::new();
    for row in rows.iter().filter(walks) {
        kinds.entry(kind(&row.kernel)).or_default().entry(row.target.name).or_default().push(row);
    }
    let mut text = format!("{title}\n\n");
    head(&mut text, &["kernel"], present);
    for (kind, of_targets) in kinds {
        let cell =
            |target: &&Target| of_targets.get(target.name).and_then(|rows| value(rows)).unwrap_or_default();
        line(&mut text, [format!("`{kind}`")].into_iter().chain(present.iter().map(cell)));
    }
    text
}

fn loads(rows: &[Row], present: &[&Target]) -> String {
    let title = "**Loads in flight** of an invocation in the loop over a tensor: the fewest and the most among the kernels of a kind.";
    by_kind(rows, present, title, |rows| {
        let loads = || rows.iter().filter_map(|row| row.code.map(|code| code.loads_in_flight));
        let (fewest, most) = (loads().min()?, loads().max()?);
        Some(if fewest == most { most.to_string() } else { format!("{fewest} to {most}") })
    })
}

fn instructions(rows: &[Row], present: &[&Target]) -> String {
    let title = "**Instructions for each 16 bytes** that an invocation loads or stores there: the median.";
    by_kind(rows, present, title, |rows| {
        let mut all: Vec<f64> =
            rows.iter().filter_map(|row| Some(row.code?.instructions_per_16_bytes())).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).map(|median| format!("{median:.0}"))
    })
}

fn starved(rows: &[Row]) -> String {
    let large = |row: &&Row| row.target.name == "ga106" && row.bytes >= LARGE && walks(row);
    let little = |row: &&Row| row.in_flight.is_some_and(|bytes| bytes < WANTED);
    let all = rows.iter().filter(large).count();
    let mut found: Vec<&Row> = rows.iter().filter(large).filter(little).collect();
    found.sort_by_key(|row| row.in_flight);
    let mut text = format!(
        "**Too little in flight**: of {all} dispatches over 8 MiB or more on a device with 132 multiprocessors, {} have less than 2 MB.\n\n",
        found.len()
    );
    if !found.is_empty() {
        line(&mut text, ["operation", "kernel", "workgroups", "KB in flight"].map(str::to_owned));
        text += "|---|---|---|---|\n";
        for row in found.iter().take(12) {
            let bytes = row.in_flight.unwrap_or(0) / 1000;
            line(
                &mut text,
                [
                    row.operation.clone(),
                    format!("`{}`", row.kernel),
                    row.workgroups.to_string(),
                    bytes.to_string(),
                ],
            );
        }
        if found.len() > 12 {
            let _ = writeln!(text, "\nand {} more, in the table.", found.len() - 12);
        }
    }
    text
}

/// What an operation is of: its norm, layout and what it does.
fn class(operation: &str) -> String {
    let (problem, done) = operation.rsplit_once(": ").unwrap_or((operation, ""));
    let words: Vec<&str> = problem.split(' ').collect();
    let dtype = ["bf16", "f16"].into_iter().find(|dtype| words.contains(dtype)).unwrap_or("f32");
    let layout = if words.contains(&"last") { " channels last" } else { "" };
    let norm = words.first().map_or("", |norm| norm.split(':').next().unwrap_or(norm));
    format!("{norm} {dtype}{layout} {done}")
}

fn estimates(rows: &[Row], present: &[&Target]) -> String {
    let mut classes: BTreeMap<String, BTreeMap<&str, (f64, f64)>> = BTreeMap::new();
    let mut last = ("", "");
    for row in rows {
        let Some(estimate) = row.estimate() else { continue };
        let (floor, sum) =
            classes.entry(class(&row.operation)).or_default().entry(row.target.name).or_default();
        // The floor is that of the operation, however many dispatches it has.
        if last != (row.target.name, &row.operation) {
            *floor += row.floor();
            last = (row.target.name, &row.operation);
        }
        *sum += estimate;
    }
    let mut text = "**Estimates**: the floor as a fraction of the time by Little's law, with 4 µs for each dispatch, over all shapes of a kind. No measurement: \
                    it counts what is in flight, not instructions, caches or banks.\n\n"
        .to_owned();
    head(&mut text, &["operation"], present);
    for (class, of_targets) in classes {
        let cell = |target: &&Target| {
            let (floor, sum) = of_targets.get(target.name).copied().unwrap_or((0.0, f64::NAN));
            if sum.is_nan() { String::new() } else { format!("{:.2}", floor / sum) }
        };
        line(&mut text, [class].into_iter().chain(present.iter().map(cell)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_operations_have_kinds() {
        assert_eq!(kind("map_forward<batch> segments f32x4 wg256 team256"), "map_forward segments f32x4");
        assert_eq!(kind("reduce_moments columns bf16x4 wg256 team8 chunk8"), "reduce_moments columns bf16x4");
        assert_eq!(
            class("batch 32x64x56x56 bf16 last relu backward: train_forward"),
            "batch bf16 channels last train_forward"
        );
        assert_eq!(class("group:32 2x320x64x64 silu backward: backward"), "group f32 backward");
    }

    #[test]
    fn what_is_between_the_marks_is_replaced() {
        let path = std::env::temp_dir().join(format!("wgnorm-page-{}.md", std::process::id()));
        std::fs::write(&path, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        let replaced = within(&path, "new\n").unwrap();
        assert!(replaced.contains("new") && !replaced.contains("old"), "{replaced}");
        std::fs::write(&path, &replaced).unwrap();
        assert_eq!(within(&path, "new\n").unwrap(), replaced);
        std::fs::write(&path, "no marks").unwrap();
        assert!(within(&path, "new").is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
