//! What is done, in order: what matters most first, since time may be over before the rest.

use std::path::Path;
use std::process::Command;

use super::Args;
use crate::Refusal;
use crate::report::Adapter;

/// PyTorch's side of the comparison, written into the folder, so that the program needs no checkout.
const PYTORCH: &str = include_str!("../peers/pytorch.py");
const SCRIPT: &str = "pytorch.py";

/// A process to be run.
#[derive(Debug)]
pub struct Step {
    pub kind: Kind,
    pub title: String,
    /// What it prints goes to this name with `.txt`, what it complains of to that with `.err`, its results to that with `.json`.
    pub name: String,
    pub program: Program,
    pub args: Vec<String>,
    /// A file of the folder without which it has nothing to do.
    pub needs: Option<String>,
    /// Its share of the time.
    pub weight: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Info,
    Check,
    Bench,
    /// A benchmark with plans that were measured, of the cases of the one of this title.
    Autotuned,
    Peer,
    /// Several benchmarks side by side.
    Table,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This one.
    Own,
    Python(String),
}

/// What PyTorch's kernels are called, and their share of the time.
const KERNELS: [(&str, f64); 3] = [("cudnn", 1.0), ("native", 1.0), ("compiled", 2.0)];

pub fn of(args: &Args, adapter: &Adapter) -> Result<Vec<Step>, Refusal> {
    let dtypes: Vec<String> =
        args.dtype.iter().flat_map(|dtype| ["--dtype".to_owned(), dtype.name().to_owned()]).collect();
    let on = |mut words: Vec<String>| {
        words.extend(args.adapter.iter().flat_map(|name| ["--adapter".to_owned(), name.clone()]));
        words
    };
    let own = |kind, title: String, name: String, words: Vec<String>, weight| Step {
        kind,
        title,
        name,
        program: Program::Own,
        args: on(words),
        needs: None,
        weight,
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut steps = vec![own(Kind::Info, "the adapter".to_owned(), "info".to_owned(), words("info"), 0.1)];
    let mut check = words("check");
    check.extend(args.check.iter().flat_map(|text| ["--filter".to_owned(), text.clone()]));
    steps.push(own(Kind::Check, "check".to_owned(), "check".to_owned(), check, 2.0));

    // Steps run in the folder.
    let python = absolute_if(args.python.contains(std::path::MAIN_SEPARATOR), &args.python)?;
    let suite_file = absolute_if(Path::new(&args.suite).is_file(), &args.suite)?;
    let kernels = kernels(&python, adapter);
    if !kernels.is_empty() {
        let script = args.dir.join(SCRIPT);
        std::fs::write(&script, PYTORCH)
            .map_err(|error| format!("cannot write {}: {error}", script.display()))?;
    }
    let suite = Path::new(&args.suite)
        .file_stem()
        .map_or_else(|| args.suite.clone(), |stem| stem.display().to_string());
    let of_suite = |batch: u32| {
        let bench = ["bench", "--suite", &suite_file, "--batch", &batch.to_string()].map(str::to_owned);
        (format!("{suite}, batch {batch}"), format!("{suite}-{batch}"), bench.to_vec())
    };
    let mut suites: Vec<_> = args.batch.iter().map(|&batch| of_suite(batch)).collect();
    suites.insert(
        1,
        (
            "transformer, batch 8".to_owned(),
            "transformer".to_owned(),
            words("bench --suite transformer --batch 8"),
        ),
    );
    for (number, (title, name, bench)) in suites.into_iter().enumerate() {
        let json = |name: &str| vec!["--json".to_owned(), format!("{name}.json")];
        let words = [bench.clone(), dtypes.clone(), json(&name)].concat();
        steps.push(own(Kind::Bench, title.clone(), name.clone(), words, 2.0));
        for &(kernels, weight) in &kernels {
            let of = format!("{name}-{kernels}");
            let words = [SCRIPT, "--cases", &format!("{name}.json"), "--kernels", kernels].map(str::to_owned);
            steps.push(Step {
                kind: Kind::Peer,
                title: format!("{title}: PyTorch, {kernels}"),
                name: of.clone(),
                program: Program::Python(python.clone()),
                args: [words.to_vec(), json(&of)].concat(),
                needs: Some(format!("{name}.json")),
                weight,
            });
        }
        if let Some((last, _)) = kernels.last() {
            let files = kernels.iter().map(|(kernels, _)| format!("{name}-{kernels}.json"));
            let words = ["peers".to_owned(), format!("{name}.json")].into_iter().chain(files);
            let words = words.chain(["--markdown".to_owned(), format!("{name}-peers.md")]).collect();
            let title = format!("{title}: side by side");
            let table = own(Kind::Table, title, format!("{name}-peers"), words, 0.1);
            // `peers` has no adapter to choose.
            let args = table.args.iter().take_while(|word| *word != "--adapter").cloned().collect();
            steps.push(Step { args, needs: Some(format!("{name}-{last}.json")), ..table });
        }
        if number == 0 {
            let tuned = format!("{name}-autotuned");
            let words = [bench, vec!["--autotune".to_owned()], json(&tuned)].concat();
            steps.push(own(Kind::Autotuned, format!("{title}: autotuned"), tuned, words, 1.5));
        }
    }
    Ok(steps)
}

/// A path as it is from anywhere, if it is one.
fn absolute_if(is_path: bool, text: &str) -> Result<String, Refusal> {
    Ok(if is_path { std::path::absolute(text)?.display().to_string() } else { text.to_owned() })
}

/// The kernels that PyTorch has for the device; none where Python has no PyTorch, or that has no such device.
fn kernels(python: &str, adapter: &Adapter) -> Vec<(&'static str, f64)> {
    let has = |code: &str| {
        Command::new(python).args(["-c", code]).output().is_ok_and(|output| output.status.success())
    };
    if adapter.device_type == "Cpu" {
        return KERNELS.into_iter().filter(|(name, _)| *name == "native" && has("import torch")).collect();
    }
    match has("import sys, torch; sys.exit(not (torch.version.cuda and torch.cuda.is_available()))") {
        true => KERNELS.to_vec(),
        false => Vec::new(),
    }
}
