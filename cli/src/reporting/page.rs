//! report.md: what the folder says, for people.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::path::Path;

use super::steps::Kind;
use super::{Done, text};
use crate::Refusal;
use crate::report::Adapter;
use crate::results::{Case, Clock, File};

/// Failed cases, and the farthest from the copy, that are listed.
const MOST_FAILURES: usize = 20;
const MOST_FAR: usize = 8;

pub fn write(path: &Path, dir: &Path, adapter: &Adapter, done: &[Done]) -> Result<(), Refusal> {
    let page = page(dir, adapter, done);
    std::fs::write(path, page).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(())
}

fn page(dir: &Path, adapter: &Adapter, done: &[Done]) -> String {
    let (version, date) = (env!("CARGO_PKG_VERSION"), jiff::Zoned::now().date());
    let mut page = format!("# wgnorm on {}\n\n", adapter.name);
    let _ = writeln!(
        page,
        "{}, {}, {}; wgnorm {version}, {date}. Written by `wgnorm report`.\n",
        adapter.device_type, adapter.backend, adapter.driver
    );
    for done in done {
        let step = &done.step;
        let part = match step.kind {
            Kind::Info => text(dir, "info.txt").map(|info| format!("```text\n{}\n```\n", info.trim_end())),
            Kind::Check => Some(check(&text(dir, "check.txt").unwrap_or_default(), done)),
            Kind::Bench => Some(bench(dir, &step.name, done)),
            Kind::Autotuned => Some(autotuned(dir, &step.name)),
            Kind::Table => text(dir, &format!("{}.md", step.name)),
            Kind::Peer => None,
        };
        if let Some(part) = part {
            let _ = writeln!(page, "## {}\n\n{}\n", heading(&step.title), part.trim_end());
        }
    }
    page += "## Steps\n\n| step | | s | files |\n|---|---|---|---|\n";
    for Done { step, ended, seconds } in done {
        let _ = writeln!(page, "| {} | {ended} | {seconds:.1} | `{}.*` |", step.title, step.name);
    }
    page
}

fn heading(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The last line, which sums up, and what failed.
fn check(printed: &str, done: &Done) -> String {
    let summary = printed.lines().rev().find(|line| line.contains(" passed, "));
    let mut part = match summary {
        Some(summary) => format!("{summary}\n"),
        None => format!("No result: {}.\n", done.ended),
    };
    let failed: Vec<&str> = printed.lines().filter(|line| line.starts_with("FAILED ")).collect();
    if !failed.is_empty() {
        let _ = writeln!(part, "\n{} outputs failed; `check.txt` has them all.\n\n```text", failed.len());
        failed.iter().take(MOST_FAILURES).for_each(|line| part += &format!("{line}\n"));
        part += "```\n";
    }
    part
}

/// What cases have in common that a row sums up.
type Row = [String; 4];

fn row(case: &Case) -> Row {
    [case.norm(), case.op.clone(), case.layout.clone(), case.variant()]
}

/// Sums over cases, each counted as often as the network has it.
#[derive(Default)]
struct Sum {
    cases: usize,
    wrong: usize,
    ns: f64,
    /// What a copy would take for what the plans move, and for what must be moved.
    plan_ns: f64,
    floor_ns: f64,
}

fn sums(file: &File) -> Vec<(Row, Sum)> {
    let clock = Clock::of(std::iter::once(file));
    let mut sums: Vec<(Row, Sum)> = Vec::new();
    for case in &file.cases {
        let row = row(case);
        let place = sums.iter().position(|(other, _)| *other == row).unwrap_or(sums.len());
        if place == sums.len() {
            sums.push((row, Sum::default()));
        }
        let sum = &mut sums[place].1;
        sum.cases += 1;
        let times = f64::from(case.multiplicity);
        match (case.ns(clock), case.copy_ns(), case.plan_fraction) {
            (Some(ns), Some(floor_ns), Some(plan_fraction)) if case.checked => {
                sum.ns += times * ns;
                sum.plan_ns += times * ns * plan_fraction;
                sum.floor_ns += times * floor_ns;
            }
            _ => sum.wrong += 1,
        }
    }
    sums
}

fn bench(dir: &Path, name: &str, done: &Done) -> String {
    let Ok(file) = File::read(&dir.join(format!("{name}.json"))) else {
        return format!("No result: {}.\n", done.ended);
    };
    let mut part = String::new();
    if !file.complete {
        part += "Cut off: sums are over the shapes that were done.\n\n";
    }
    part += "| norm | operation | layout | type | cases | ms | plan, of a copy | floor, of a copy |\n|---|---|---|---|---|---|---|---|\n";
    for ([norm, op, layout, variant], sum) in sums(&file) {
        let cases = match sum.wrong {
            0 => sum.cases.to_string(),
            wrong => format!("{} ({wrong} failed)", sum.cases),
        };
        let _ = writeln!(
            part,
            "| {norm} | {op} | {layout} | {variant} | {cases} | {:.3} | {:.2} | {:.2} |",
            sum.ns / 1e6,
            sum.plan_ns / sum.ns,
            sum.floor_ns / sum.ns
        );
    }
    part += "\nms: all layers, each as often as the network has it.\n\nFarthest from the copy:\n\n";
    let clock = Clock::of(std::iter::once(&file));
    let timed = |case: &'_ Case| case.checked && case.ns(clock).is_some() && case.plan_fraction.is_some();
    let mut far: Vec<_> = file.cases.iter().filter(|case| timed(case)).collect();
    far.sort_by(|one, other| one.plan_fraction.partial_cmp(&other.plan_fraction).unwrap_or(Ordering::Equal));
    for case in far.into_iter().take(MOST_FAR) {
        let (fraction, us) =
            (case.plan_fraction.unwrap_or_default(), case.ns(clock).unwrap_or_default() / 1e3);
        let _ =
            writeln!(part, "- {:.2}: {} {} {}, {us:.1} µs", fraction, case.name, case.layout, case.variant());
    }
    part
}

/// What measured plans gain over the policy's.
fn autotuned(dir: &Path, name: &str) -> String {
    let policy = name.trim_end_matches("-autotuned");
    let read = |name: &str| File::read(&dir.join(format!("{name}.json"))).ok();
    let (Some(policy), Some(tuned)) = (read(policy), read(name)) else {
        return "No result.\n".to_owned();
    };
    let clock = Clock::of([&policy, &tuned].into_iter());
    let cases = policy.keyed();
    let mut part = "| operation | layout | policy | autotuned | gain |\n|---|---|---|---|---|\n".to_owned();
    let mut rows: Vec<(Row, [f64; 2])> = Vec::new();
    for (key, tuned) in tuned.keyed() {
        let same = cases.iter().find(|(other, _)| *other == key);
        let relative = |case: &Case| Some(f64::from(case.multiplicity) * case.ns(clock)? / case.copy_ns()?);
        let Some((before, after)) = same.and_then(|(_, case)| Some((relative(case)?, relative(tuned)?)))
        else {
            continue;
        };
        // In units of the copy beside it, whose speed may differ from run to run.
        let floor = f64::from(tuned.multiplicity) * tuned.floor_bytes;
        let place = rows.iter().position(|(other, _)| *other == row(tuned)).unwrap_or(rows.len());
        if place == rows.len() {
            rows.push((row(tuned), [0.0; 2]));
        }
        rows[place].1[0] += floor * before;
        rows[place].1[1] += floor * after;
    }
    for ([_, op, layout, _], [before, after]) in rows {
        let _ = writeln!(part, "| {op} | {layout} | 1 | {:.3} | {:.3} |", after / before, before / after);
    }
    part + "\nTimes beside the copies of each run.\n"
}

#[cfg(test)]
mod tests {
    use super::super::child::Ended;
    use super::super::steps::{Program, Step};
    use super::*;

    fn done(kind: Kind, name: &str, ended: Ended) -> Done {
        let step = Step {
            kind,
            title: name.to_owned(),
            name: name.to_owned(),
            program: Program::Own,
            args: Vec::new(),
            needs: None,
            weight: 1.0,
        };
        Done { step, ended, seconds: 1.0 }
    }

    #[test]
    fn a_check_that_was_cut_off_is_no_success() {
        let cut = done(Kind::Check, "check", Ended::CutOff);
        assert!(check("945 cases on …\nFAILED a\n", &cut).contains("No result: cut off"));
        let whole = check("FAILED a y: index 1\n1 passed, 1 failed, 0 skipped, 2.0 s\n", &cut);
        assert!(whole.starts_with("1 passed, 1 failed") && whole.contains("FAILED a y"), "{whole}");
    }

    #[test]
    fn what_failed_is_in_no_sum() {
        let case = |checked: bool, ns: f64| {
            serde_json::json!({
                "name": "n", "op": "inference", "shape": [2, 3], "layout": "channels_first", "dtype": "float32", "multiplicity": 2,
                "floor_bytes": 100.0, "checked": checked, "device_ns": { "median": ns }, "wall_ns": { "median": ns },
                "copy_gbps": 1.0, "plan_fraction": 0.5
            })
        };
        let adapter = serde_json::json!({ "name": "", "backend": "", "driver": "", "device_type": "" });
        let file = serde_json::json!({ "adapter": adapter, "date": "", "cases": [case(true, 200.0), case(false, 9e9)] });
        let file: File = serde_json::from_value(file).unwrap();
        let [(_, sum)] = sums(&file).try_into().ok().unwrap();
        assert_eq!((sum.cases, sum.wrong, sum.ns, sum.plan_ns, sum.floor_ns), (2, 1, 400.0, 200.0, 200.0));
    }
}
