//! `wgnorm compare`: what became faster or slower from one run of the benchmark to another.
//!
//! A machine's speed drifts, so every ratio of times is shown twice: raw, and relative to the copy that was timed beside
//! each case, which drifts alike.

use std::path::PathBuf;

use crate::results::{Case, Clock, File};
use crate::{Outcome, Refusal};

#[derive(clap::Args)]
pub struct Args {
    /// JSON of the run to compare with
    old: PathBuf,
    /// JSON of the run to judge
    new: PathBuf,
    /// Fails if a total became slower by more than this many percent, relative to the copy (raw if a file lacks its
    /// speed)
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    fail_above: Option<f64>,
}

/// A case of both files.
struct Pair<'f> {
    old: &'f Case,
    new: &'f Case,
    old_ns: f64,
    new_ns: f64,
    /// Time a copy takes for the same bytes, in both runs.
    copies_ns: Option<[f64; 2]>,
}

/// New over old: below 1 is faster.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    raw: f64,
    /// `None` where a file has no speed of a copy.
    to_copy: Option<f64>,
}

/// Pairs of one norm, operation, layout, element type with what is fused, and cache state.
struct Group<'p, 'f> {
    label: String,
    pairs: Vec<&'p Pair<'f>>,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if percent.is_finite() && percent >= 0.0 { Ok(percent) } else { Err("must be 0 or more".to_owned()) }
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let (old, new) = (File::read(&args.old)?, File::read(&args.new)?);
    let clock = Clock::of([&old, &new].into_iter());
    let (old_cases, new_cases) = (old.keyed(), new.keyed());
    let mut pairs = Vec::new();
    let mut notes = Vec::new();
    for (key, new_case) in &new_cases {
        match old_cases.iter().find(|(other, _)| other == key) {
            Some((_, old_case)) => match Pair::new(old_case, new_case, clock) {
                Some(pair) => pairs.push(pair),
                None => notes.push(format!("without times in one of the files: {}", label(new_case))),
            },
            None => notes.push(format!("only in the new file: {}", label(new_case))),
        }
    }
    for (key, old_case) in &old_cases {
        if !new_cases.iter().any(|(other, _)| other == key) {
            notes.push(format!("only in the old file: {}", label(old_case)));
        }
    }
    if pairs.is_empty() {
        let (old, new) = (args.old.display(), args.new.display());
        return Err(format!("{old} and {new} have no timed case in common").into());
    }

    print_head(&old, &new, clock);
    print_cases(&pairs);
    for note in &notes {
        println!("{note}");
    }
    let groups = groups(&pairs);
    print_groups(&groups);
    let Some(limit) = args.fail_above else { return Ok(Outcome::Passed) };
    Ok(judge(&groups, limit))
}

impl<'f> Pair<'f> {
    fn new(old: &'f Case, new: &'f Case, clock: Clock) -> Option<Self> {
        let copies_ns = old.copy_ns().zip(new.copy_ns()).map(|(old, new)| [old, new]);
        Some(Self { old, new, old_ns: old.ns(clock)?, new_ns: new.ns(clock)?, copies_ns })
    }

    fn ratio(&self) -> Ratio {
        let raw = self.new_ns / self.old_ns;
        Ratio { raw, to_copy: self.copies_ns.map(|[old, new]| raw * old / new) }
    }
}

impl Group<'_, '_> {
    /// Each pair counts alike.
    fn geometric_mean(&self) -> Ratio {
        let mean = |ratio: &dyn Fn(Ratio) -> Option<f64>| -> Option<f64> {
            let logs: Option<f64> = self.pairs.iter().map(|pair| ratio(pair.ratio()).map(f64::ln)).sum();
            Some((logs? / self.pairs.len() as f64).exp())
        };
        Ratio {
            raw: mean(&|ratio| Some(ratio.raw)).unwrap_or(f64::NAN),
            to_copy: mean(&|ratio| ratio.to_copy),
        }
    }

    /// Sums over all layers, by the multiplicity of the new file.
    fn times(&self) -> [f64; 2] {
        let sum = |ns: &dyn Fn(&Pair<'_>) -> f64| {
            self.pairs.iter().map(|pair| f64::from(pair.new.multiplicity) * ns(pair)).sum::<f64>()
        };
        [sum(&|pair| pair.old_ns), sum(&|pair| pair.new_ns)]
    }

    fn total(&self) -> Ratio {
        let [old, new] = self.times();
        let copies = |run: usize| -> Option<f64> {
            let each = |pair: &&Pair<'_>| Some(f64::from(pair.new.multiplicity) * pair.copies_ns?[run]);
            self.pairs.iter().map(each).sum()
        };
        let raw = new / old;
        Ratio { raw, to_copy: copies(0).zip(copies(1)).map(|(old, new)| raw * old / new) }
    }
}

fn groups<'p, 'f>(pairs: &'p [Pair<'f>]) -> Vec<Group<'p, 'f>> {
    let mut groups: Vec<Group<'p, 'f>> = Vec::new();
    for pair in pairs {
        let Case { op, layout, cache, .. } = pair.new;
        // Batch norm goes without saying, as it did before there were others.
        let norm = Some(pair.new.norm()).filter(|norm| norm != "batch");
        let op = norm.map_or_else(|| op.clone(), |norm| format!("{norm} {op}"));
        let label = format!("{op:<15} {layout:<14} {:<8} {cache:<5}", pair.new.variant());
        match groups.iter_mut().find(|group| group.label == label) {
            Some(group) => group.pairs.push(pair),
            None => groups.push(Group { label, pairs: vec![pair] }),
        }
    }
    groups
}

fn label(case: &Case) -> String {
    format!("{} {} {} {}", case.name, case.layout, case.variant(), case.cache)
}

fn print_head(old: &File, new: &File, clock: Clock) {
    for (which, file) in [("old", old), ("new", new)] {
        let commit = file.git.as_deref().unwrap_or("no commit");
        println!("{which}: {} on {}, {commit}", file.date, file.adapter);
    }
    if old.adapter != new.adapter {
        println!(
            "THE ADAPTERS DIFFER: raw ratios compare machines; only those to the copy say something of the kernels."
        );
    }
    let clock = match clock {
        Clock::Device => "device",
        Clock::Wall => "wall clock (a file has no device times)",
    };
    println!("times are medians of the {clock}; ratios are new / old, below 1 is faster\n");
}

fn print_cases(pairs: &[Pair<'_>]) {
    println!(
        "{:<34} {:<14} {:<8} {:<5} {:>9} {:>9} {:>7} {:>8} {:>9} {:>9}",
        "case", "layout", "dtype", "cache", "old ms", "new ms", "ratio", "to copy", "old plan", "new plan"
    );
    for pair in pairs {
        let Pair { old, new, .. } = pair;
        let ratio = pair.ratio();
        println!(
            "{:<34} {:<14} {:<8} {:<5} {:>9.3} {:>9.3} {:>7.3} {:>8} {:>9} {:>9}",
            new.name,
            new.layout,
            new.variant(),
            new.cache,
            pair.old_ns / 1e6,
            pair.new_ns / 1e6,
            ratio.raw,
            or_dash(ratio.to_copy),
            percent(old.plan_fraction),
            percent(new.plan_fraction)
        );
    }
}

fn print_groups(groups: &[Group<'_, '_>]) {
    println!(
        "\n{:<15} {:<14} {:<8} {:<5} {:>9} {:>9} {:>7} {:>8} {:>9} {:>8}",
        "total", "layout", "dtype", "cache", "old ms", "new ms", "ratio", "to copy", "geomean", "to copy"
    );
    for group in groups {
        let ([old, new], total, mean) = (group.times(), group.total(), group.geometric_mean());
        println!(
            "{} {:>9.2} {:>9.2} {:>7.3} {:>8} {:>9.3} {:>8}",
            group.label,
            old / 1e6,
            new / 1e6,
            total.raw,
            or_dash(total.to_copy),
            mean.raw,
            or_dash(mean.to_copy)
        );
    }
    println!(
        "totals count every layer as often as the network has it; geometric means count every case once."
    );
}

/// Whether a total became slower by more than `limit` percent.
fn judge(groups: &[Group<'_, '_>], limit: f64) -> Outcome {
    let mut outcome = Outcome::Passed;
    for group in groups {
        let total = group.total();
        let slower = 100.0 * (total.to_copy.unwrap_or(total.raw) - 1.0);
        if slower > limit {
            println!("SLOWER by {slower:.1} %, more than {limit} %: {}", group.label.trim_end());
            outcome = Outcome::Failed;
        }
    }
    outcome
}

fn or_dash(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"))
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or("-".to_owned(), |fraction| format!("{:.0}%", 100.0 * fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(cases: &[(&str, f64, f64)]) -> File {
        let cases: Vec<_> = cases
            .iter()
            .map(|(name, ns, gbps)| {
                serde_json::json!({
                    "name": name, "op": "inference", "layout": "channels_first", "dtype": "float32",
                    "multiplicity": 2, "floor_bytes": 100, "device_ns": null, "wall_ns": { "median": ns },
                    "copy_gbps": gbps,
                })
            })
            .collect();
        let adapter = serde_json::json!({ "name": "", "backend": "", "driver": "", "device_type": "" });
        let file = serde_json::json!({ "adapter": adapter, "git": null, "date": "", "cases": cases });
        serde_json::from_value(file).unwrap()
    }

    fn totals(old: &File, new: &File) -> (Ratio, Ratio) {
        let (old, new) = (old.keyed(), new.keyed());
        let pairs: Vec<_> = old
            .iter()
            .zip(&new)
            .map(|((_, old), (_, new))| Pair::new(old, new, Clock::Wall).unwrap())
            .collect();
        let groups = groups(&pairs);
        (groups[0].total(), groups[0].geometric_mean())
    }

    #[test]
    fn a_slower_machine_is_no_slower_kernel() {
        let old = file(&[("a", 10.0, 8.0), ("b", 1000.0, 8.0)]);
        let new = file(&[("a", 20.0, 4.0), ("b", 2000.0, 4.0)]);
        let expected = Ratio { raw: 2.0, to_copy: Some(1.0) };
        let (total, mean) = totals(&old, &new);
        assert_eq!(total, expected);
        assert!((mean.raw - 2.0).abs() < 1e-12 && (mean.to_copy.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_slower_kernel_is_judged() {
        let old = file(&[("a", 100.0, 8.0)]);
        let new = file(&[("a", 110.0, 8.0)]);
        let pair = Pair::new(&old.cases[0], &new.cases[0], Clock::Wall).unwrap();
        let pairs = [pair];
        assert!(judge(&groups(&pairs), 10.1) == Outcome::Passed);
        assert!(judge(&groups(&pairs), 9.9) == Outcome::Failed);
    }

    #[test]
    fn what_is_computed_tells_cases_apart() {
        let plain = file(&[("a", 1.0, 1.0)]);
        let mut others = Vec::new();
        for (field, value) in [
            ("activation", "relu".into()),
            ("residual", true.into()),
            ("in_place", true.into()),
            ("sum", true.into()),
            ("norm", "rms".into()),
            ("gate", "last".into()),
        ] {
            let mut case = serde_json::json!({
                "name": "a", "op": "inference", "layout": "channels_first", "dtype": "float32",
                "multiplicity": 2, "floor_bytes": 100, "wall_ns": { "median": 1.0 },
            });
            case[field] = value;
            others.push(serde_json::from_value::<Case>(case).unwrap());
        }
        let labels: Vec<_> = others.iter().map(Case::variant).collect();
        assert_eq!(
            labels,
            [
                "float32, relu",
                "float32, residual",
                "float32, in place",
                "float32, sum",
                "float32",
                "float32, gate last"
            ]
        );
        assert_eq!((plain.cases[0].norm(), others[4].norm()), ("batch".into(), "rms".into()));
        let mut all = plain.cases;
        all.extend(others);
        let all = File { cases: all, ..file(&[]) };
        // None of them counts as a repetition of another.
        assert!(all.keyed().iter().all(|(key, _)| key.2 == 0));
    }

    #[test]
    fn repeated_cases_are_told_apart() {
        let repeated = file(&[("a", 1.0, 1.0), ("a", 2.0, 1.0)]);
        let keyed = repeated.keyed();
        assert_ne!(keyed[0].0, keyed[1].0);
    }
}
