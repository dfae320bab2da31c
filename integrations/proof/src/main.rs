//! `cargo xtask proof [NAME…] [--quick]`: claims of the literature about normalization, each trained or measured here on wgnorm's kernels in burn.
//!
//! An experiment writes its figures as CSV, what came of it as JSON and a plot as SVG to `docs/proof/`, and the table of `docs/PROOF.md` is made of all that is there. Runs that
//! are finished are kept in `target/proof/` and not run again; `--quick` is smaller, has a folder of its own there, and leaves `docs/` alone.

#[path = "../../burn/examples/mnist/digits.rs"]
mod digits;
mod experiments;
mod figure;
mod lab;
#[cfg(feature = "mpi")]
mod mpi;
mod network;
mod norm;
mod outcome;
mod parameters;
mod ranks;
mod sweep;
mod timing;
mod training;
mod transformer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use experiments::EXPERIMENTS;
use lab::Lab;

/// What goes wrong is told, and nothing else is done about it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// Experiments; all without any
    names: Vec<String>,
    /// Few steps, one seed: to see that it runs
    #[arg(long)]
    quick: bool,
    /// Says what there is
    #[arg(long)]
    list: bool,
    /// Where results are kept, instead of target/proof
    #[arg(long)]
    keep: Option<PathBuf>,
    /// A process of an MPI job
    #[cfg(feature = "mpi")]
    #[arg(long, hide = true)]
    mpi_job: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wgnorm-proof: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    #[cfg(feature = "mpi")]
    if let Some(job) = &args.mpi_job {
        return mpi::run(job);
    }
    if args.list {
        for experiment in EXPERIMENTS {
            println!("{:<14} {}", experiment.name, experiment.claim);
        }
        return Ok(());
    }
    if let Some(name) = args.names.iter().find(|name| EXPERIMENTS.iter().all(|known| known.name != **name)) {
        let known: Vec<&str> = EXPERIMENTS.iter().map(|known| known.name).collect();
        return Err(format!("no experiment {name:?}; there are {}", known.join(", ")).into());
    }
    let lab = Lab::open(args.quick, args.keep.as_deref())?;
    for experiment in EXPERIMENTS {
        if args.names.is_empty() || args.names.iter().any(|name| name == experiment.name) {
            println!("{}: {}", experiment.name, experiment.claim);
            let outcome = (experiment.run)(&lab.of(experiment.name))?;
            let verdict =
                if args.quick { "it runs; few steps prove nothing" } else { outcome.verdict.words() };
            println!("{}: {verdict}. {}", experiment.name, outcome.found);
            lab.keep(experiment, &outcome)?;
        }
    }
    lab.write_table(EXPERIMENTS)
}
