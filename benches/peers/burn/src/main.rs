//! Times norms in burn, on its wgpu backend, over the cases of a `wgnorm bench --json` file, and writes the same JSON.
//!
//! Exit codes: 0 if every case ran and was right, 1 if one failed or was off, 2 for wrong usage, no adapter, another
//! adapter than the cases', or no case.

mod cases;
mod check;
mod layer;
mod norm;
#[path = "../../../../src/eval/random.rs"]
#[allow(dead_code, reason = "shared with the program, which uses all of it")]
mod random;
#[path = "../../../../cli/src/report.rs"]
#[allow(dead_code, reason = "shared with the program, which uses all of it")]
mod report;
mod results;
mod stopwatch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use clap::Parser;

use cases::{Cases, Group};
use layer::{Bench, Op};
use norm::Layers;
use results::{CaseResult, Peer, Report};

/// Why nothing can be timed.
type Refusal = Box<dyn std::error::Error>;

/// Of the package that `Cargo.toml` pins.
const BURN: &str = "0.22.1";

#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// What `wgnorm bench --json` wrote: shapes, element types and operations
    #[arg(long, value_name = "FILE")]
    cases: PathBuf,
    /// Where the results go
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// Whose layers
    #[arg(long, value_enum, default_value = "burn")]
    layers: Layers,
    /// Samples of each measurement
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(refusal) => {
            eprintln!("wgnorm-peer-burn: {refusal}");
            ExitCode::from(2)
        }
    }
}

/// Whether every case ran and was right.
fn run(args: &Args) -> Result<bool, Refusal> {
    let cases = Cases::read(&args.cases)?;
    cases.notes.iter().for_each(|note| println!("{note}"));
    let (device, WgpuSetup { adapter, device: wgpu_device, queue, .. }) =
        Device::wgpu_options().init_with_setup()?;
    let adapter = report::Adapter::of(&adapter.get_info());
    let (name, variant) = match args.layers {
        Layers::Burn => ("burn", "wgpu, WGSL, fusion, autotune, NCHW"),
        Layers::Wgnorm => ("wgnorm in burn", "burn's wgpu, fusion, autotune, NCHW"),
    };
    println!("{name}: burn {BURN} on {adapter}");
    if adapter.name != cases.adapter {
        return Err(format!(
            "the cases ran on {:?}; CUBECL_WGPU_DEFAULT_DEVICE chooses burn's adapter, WGPU_ADAPTER_NAME that of \
             wgnorm",
            cases.adapter
        )
        .into());
    }
    if args.layers == Layers::Wgnorm {
        wgnorm_burn::register(&device, wgpu_device.clone(), queue.clone())?;
        wgnorm_burn::fallback::set_strict(true);
    }
    let copies = wgnorm::Context::from_wgpu(wgpu_device, queue)?;
    let bench = Bench { device, copies, samples: args.samples, layers: args.layers };

    let mut results = Vec::new();
    for group in &cases.groups {
        for &op in &group.ops {
            let result = measure(&bench, group, op);
            println!("{}", result.line());
            results.push(result);
        }
    }
    let right = results.iter().all(|result| result.checked);
    let peer = Peer { name, version: BURN, variant: variant.to_owned() };
    let total = results::totals(&results);
    let date = jiff::Timestamp::now().to_string();
    report::write_json(&args.json, &Report { adapter, git: None, date, peer, cases: results, total })?;
    Ok(right)
}

/// Measures one case. burn panics where a kernel cannot be made or run; that is this case's error.
fn measure(bench: &Bench, group: &Group, op: Op) -> CaseResult {
    let blank = CaseResult::blank(group, op);
    let caught = catch_unwind(AssertUnwindSafe(|| bench.measure(group, op)));
    let told = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("burn panicked: {}", text.unwrap_or("without a message"))
    };
    match caught.map_err(told) {
        Ok(Ok(measured)) => blank.with(&measured),
        Ok(Err(error)) => CaseResult { error: Some(error.to_string()), ..blank },
        Err(error) => CaseResult { error: Some(error), ..blank },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_pinned_one() {
        assert!(include_str!("../Cargo.toml").contains(&format!("burn = {{ version = \"={}\"", super::BURN)));
    }
}
