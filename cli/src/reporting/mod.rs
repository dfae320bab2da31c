//! `wgnorm report`: all that is to be known of a GPU, in one folder and a few minutes: whether the kernels are right on it, how fast they are beside a copy, what
//! autotuning finds, and PyTorch, with cuDNN and compiled, where there is one.
//!
//! Every step is a process of its own (this program, or Python), which is ended when its time is over: what it has written by then counts, and a driver that
//! fails takes no other step along. The page is written anew after each.

mod child;
mod page;
mod steps;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use wgnorm::DType;

use crate::bench::dtype_parser;
use crate::report::Adapter;
use crate::{Outcome, Refusal};
use child::Ended;
use steps::{Kind, Step};

#[derive(clap::Args)]
pub struct Args {
    /// Where everything goes: report.md; of each step its JSON, what it printed, and what it complained of
    dir: PathBuf,
    /// How long it may take. Steps share what is left of it
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0, value_parser = parse_minutes)]
    minutes: f64,
    /// Samples per batch of the suite; may be given several times
    #[arg(long, value_name = "BATCH", default_values_t = [32, 256], value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// The suite whose layers are timed, as `bench --suite`
    #[arg(long, value_name = "NAME|FILE", default_value = "resnet50")]
    suite: String,
    /// Element type; may be given several times
    #[arg(long, value_name = "D", default_values = ["float32", "bfloat16"], value_parser = dtype_parser())]
    dtype: Vec<DType>,
    /// A Python that may have PyTorch
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: String,
    /// Takes the first adapter whose name contains this text
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Checks only cases whose name contains this text
    #[arg(long, value_name = "TEXT")]
    check: Option<String>,
}

/// A step and what came of it.
pub struct Done {
    pub step: Step,
    pub ended: Ended,
    pub seconds: f64,
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if minutes.is_finite() && minutes > 0.0 { Ok(minutes) } else { Err("must be more than 0".to_owned()) }
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let context = crate::open(args.adapter.as_deref())?;
    let adapter = Adapter::of_context(&context);
    // Its own processes are to have the adapter to themselves.
    drop(context);
    std::fs::create_dir_all(&args.dir)
        .map_err(|error| format!("cannot make {}: {error}", args.dir.display()))?;
    println!("{adapter}: at most {} minutes, into {}", args.minutes, args.dir.display());
    let steps = steps::of(args, &adapter)?;
    for ending in ["json", "md", "txt", "err"] {
        // What an older run left must not be taken for a result of this one.
        for step in &steps {
            let _ = std::fs::remove_file(args.dir.join(format!("{}.{ending}", step.name)));
        }
    }
    let whole = Duration::from_secs_f64(60.0 * args.minutes);
    let (started, total) = (Instant::now(), steps.len());
    let progress = ProgressBar::new(whole.as_secs()).with_style(
        ProgressStyle::with_template("{bar:30} {elapsed} of {len} s: {msg}").expect("a valid template"),
    );
    let mut done: Vec<Done> = Vec::new();
    let mut left: f64 = steps.iter().map(|step| step.weight).sum();
    for (number, step) in steps.into_iter().enumerate() {
        progress.set_message(format!("{} ({} of {total})", step.title, number + 1));
        // What earlier steps have not used is there for the later ones.
        let limit = whole.saturating_sub(started.elapsed()).mul_f64(step.weight / left);
        left -= step.weight;
        let begun = Instant::now();
        let ended = match &step.needs {
            Some(file) if !args.dir.join(file).is_file() => Ended::Skipped(format!("there is no {file}")),
            _ => child::run(&step, &args.dir, limit, || progress.set_position(started.elapsed().as_secs())),
        };
        let seconds = begun.elapsed().as_secs_f64();
        progress.suspend(|| println!("{:<44} {:>6.1} s  {ended}", step.title, seconds));
        done.push(Done { step, ended, seconds });
        page::write(&args.dir.join("report.md"), &args.dir, &adapter, &done)?;
    }
    progress.finish_and_clear();
    println!("{}", args.dir.join("report.md").display());
    let failed =
        done.iter().any(|done| done.step.kind != Kind::Peer && matches!(done.ended, Ended::Failed(_)));
    Ok(if failed { Outcome::Failed } else { Outcome::Passed })
}

/// The text of a file of the folder, if it is there.
fn text(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(name)).ok()
}
