//! `wgnorm`: what adapters there are, whether the kernels are right on them, and how fast they run.
//!
//! Exit codes: 0 if all passed, 1 if something failed, 2 for wrong usage, no adapter, or nothing that matched.

mod bench;
mod check;
mod compare;
mod info;
mod kernels;
mod layout;
mod peers;
mod report;
mod reporting;
mod results;
mod tuning;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wgnorm::{Context, ContextOptions};

#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists adapters, their limits, and what the kernels will do on each
    Info(info::Args),
    /// Proves the kernels on this adapter and driver against the f64 reference
    Check(check::Args),
    /// Compiles what the norms of common models run on this adapter, and lists it
    Kernels(kernels::Args),
    /// Times the kernels beside a plain copy, each result checked before it is timed
    Bench(Box<bench::Args>),
    /// Compares two JSON files of `bench`
    Compare(compare::Args),
    /// Checks and times everything on this GPU within a few minutes, PyTorch beside it where there is one, into one folder
    Report(reporting::Args),
    /// One run of `bench --first-use`
    #[command(hide = true)]
    FirstUse(bench::first_use::Args),
    /// Sets a JSON file of `bench` beside those of other implementations (benches/peers)
    Peers(peers::Args),
}

/// How a command ended, if it could run at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
}

/// Why a command could not run.
pub type Refusal = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // Cases and options know them by their names.
    wgnorm::eval::custom_activations();
    let outcome = match Cli::parse().command {
        Command::Info(args) => info::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => reporting::run(&args),
        Command::FirstUse(args) => bench::first_use::run(&args),
        Command::Peers(args) => peers::run(&args),
    };
    match outcome {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Err(refusal) => {
            eprintln!("wgnorm: {refusal}");
            ExitCode::from(2)
        }
    }
}

/// Opens the adapter that was asked for.
fn open(adapter_name: Option<&str>) -> Result<Context, wgnorm::Error> {
    let options = ContextOptions::default().adapter_name(adapter_name.map(str::to_owned));
    pollster::block_on(Context::headless_with(&options))
}
