//! `wgnorm bench --first-use`: the time from a fresh context to the first y, with nothing compiled before, and with what a
//! process before has left.
//!
//! A process compiles a kernel once, and its driver keeps more than that, so every run is a process of its own: this program
//! again, with a hidden command.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wgnorm::{BatchNorm, BatchNormOptions, Context, ContextOptions, Layout};

use super::measure::Spread;
use super::suite::{self, Dims, Layer};
use crate::{Outcome, Refusal, layout};

/// Runs of each state at most; the median is reported.
const MOST_RUNS: u32 = 3;

/// What a process finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing, as far as a driver's own cache can be turned off.
    Cold,
    /// The file of the crate's pipeline cache; the driver's own is off.
    PipelineCache,
    /// The driver's own cache; that of the crate is off.
    DriverCache,
}

impl State {
    const ALL: [Self; 3] = [Self::Cold, Self::PipelineCache, Self::DriverCache];

    const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::PipelineCache => "pipeline_cache",
            Self::DriverCache => "driver_cache",
        }
    }
}

/// Times of one state, in nanoseconds from the beginning.
#[derive(Clone, Debug, Serialize)]
pub struct FirstUse {
    layout: &'static str,
    state: &'static str,
    runs: u32,
    /// Layers that all_ns covers.
    layers: u32,
    /// Until there is a context.
    open_ns: Spread,
    /// Until the device has computed y of the first layer.
    first_ns: Spread,
    /// Until it has computed those of all layers, one after the other.
    all_ns: Spread,
    /// Compiled, or taken from a cache.
    kernels: usize,
    /// What became of the crate's pipeline cache.
    pipeline_cache: String,
    /// Bytes that the driver keeps in it, if there is one.
    pipeline_cache_bytes: Option<u64>,
}

/// What one process reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    open_ns: f64,
    first_ns: f64,
    all_ns: f64,
    kernels: usize,
    pipeline_cache: String,
    pipeline_cache_bytes: Option<u64>,
}

/// Arguments of the hidden command.
#[derive(clap::Args)]
pub struct Args {
    /// Layers, in order
    #[arg(long, value_parser = suite::parse_shape)]
    shape: Vec<Dims>,
    #[arg(long, value_parser = layout::parser())]
    layout: Layout,
    #[arg(long)]
    adapter: Option<String>,
    /// Directory of the pipeline cache, which is saved when all is timed
    #[arg(long)]
    pipeline_cache: Option<PathBuf>,
}

/// The hidden command: runs the layers and prints the times as JSON.
pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let started = Instant::now();
    let elapsed = || started.elapsed().as_nanos() as f64;
    let options = ContextOptions::default()
        .adapter_name(args.adapter.clone())
        .pipeline_cache(args.pipeline_cache.clone());
    let context = pollster::block_on(Context::headless_with(&options))?;
    let open_ns = elapsed();
    let mut first_ns = None;
    for Dims(dims) in &args.shape {
        forward(&context, args.layout, dims)?;
        first_ns.get_or_insert_with(elapsed);
    }
    let all_ns = elapsed();
    let pipeline_cache_bytes = context.save_pipeline_cache()?;
    let run = Run {
        open_ns,
        first_ns: first_ns.ok_or("no layers")?,
        all_ns,
        kernels: context.compiled_kernels().len(),
        pipeline_cache: context.pipeline_cache().to_string(),
        pipeline_cache_bytes,
    };
    println!("{}", serde_json::to_string(&run)?);
    Ok(Outcome::Passed)
}

/// A layer's training forward pass on zeros, until it has run.
fn forward(context: &Context, layout: Layout, dims: &[usize]) -> Result<(), Refusal> {
    let memory = layout::memory_dims(layout, dims);
    context.block_on(async {
        let x = context.zeros(&memory).await?.with_layout(layout);
        let mut layer = BatchNorm::new(context, dims[1], BatchNormOptions::pytorch()).await?;
        layer.train_forward(&x).await
    })?;
    context.device().poll(wgpu::PollType::wait_indefinitely())?;
    Ok(())
}

/// Measures every state in every layout, and prints a table.
pub fn measure(
    layers: &[Layer],
    layouts: &[Layout],
    samples: u32,
    adapter: Option<&str>,
) -> Result<Vec<FirstUse>, Refusal> {
    let runs = samples.min(MOST_RUNS);
    let count: u32 = layers.iter().map(|layer| layer.times).sum();
    println!(
        "time to the first y of a training forward pass, each run a process of its own, medians of {runs}"
    );
    println!(
        "{:<14} {:<15} {:>10} {:>14} {:>14} {:>8} {:>14}",
        "layout",
        "cache",
        "open, ms",
        "first y, ms",
        format!("all {count}, ms"),
        "kernels",
        "cache, bytes"
    );
    let mut measured = Vec::new();
    for &layout in layouts {
        let scratch = Scratch::new()?;
        let launch = |state, run| launch(layers, layout, adapter, state, scratch.directory(state, run));
        for state in State::ALL {
            if state == State::DriverCache {
                launch(state, 0)?;
            }
            let all: Vec<Run> = (0..runs).map(|run| launch(state, run)).collect::<Result<_, _>>()?;
            let last = all.last().ok_or("no runs")?;
            let spread = |time: fn(&Run) -> f64| Spread::of(all.iter().map(time).collect());
            let first_use = FirstUse {
                layout: layout.name(),
                state: state.name(),
                runs,
                layers: count,
                open_ns: spread(|run| run.open_ns),
                first_ns: spread(|run| run.first_ns),
                all_ns: spread(|run| run.all_ns),
                kernels: last.kernels,
                pipeline_cache: last.pipeline_cache.clone(),
                pipeline_cache_bytes: last.pipeline_cache_bytes,
            };
            row(&first_use);
            measured.push(first_use);
        }
    }
    println!(
        "cold: no cache of this crate, those of Mesa and NVIDIA off; other drivers' own caches cannot be turned"
    );
    println!(
        "off from outside. pipeline_cache: with the file that a process before has saved. driver_cache: the"
    );
    println!(
        "driver's own alone. Times are from the start of the program: a context, then tensors, kernels, results."
    );
    Ok(measured)
}

fn row(first_use: &FirstUse) {
    let ms = |spread: Spread| format!("{:.1}", spread.median / 1e6);
    println!(
        "{:<14} {:<15} {:>10} {:>14} {:>14} {:>8} {:>14}",
        first_use.layout,
        first_use.state,
        ms(first_use.open_ns),
        ms(first_use.first_ns),
        ms(first_use.all_ns),
        first_use.kernels,
        first_use.pipeline_cache_bytes.map_or("-".to_owned(), |bytes| bytes.to_string())
    );
    if !matches!(first_use.pipeline_cache.split(':').next(), Some("off" | "new" | "loaded")) {
        println!("    {}", first_use.pipeline_cache);
    }
}

/// Runs one process in a state, with a directory for its cache.
fn launch(
    layers: &[Layer],
    layout: Layout,
    adapter: Option<&str>,
    state: State,
    directory: PathBuf,
) -> Result<Run, Refusal> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["first-use", "--layout", layout.name()]);
    command.args(adapter.into_iter().flat_map(|name| ["--adapter", name]));
    for layer in layers {
        let shape = layer.dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        for _ in 0..layer.times {
            command.args(["--shape", &shape]);
        }
    }
    // The names of Mesa (the second for versions before 22) and NVIDIA.
    const DIRECTORIES: [&str; 3] =
        ["MESA_SHADER_CACHE_DIR", "MESA_GLSL_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];
    const DISABLE: [&str; 2] = ["MESA_SHADER_CACHE_DISABLE", "MESA_GLSL_CACHE_DISABLE"];
    let own = state == State::DriverCache;
    command.envs(DISABLE.map(|name| (name, if own { "false" } else { "true" })));
    command.env("__GL_SHADER_DISK_CACHE", if own { "1" } else { "0" });
    std::fs::create_dir_all(&directory)?;
    if own {
        command.envs(DIRECTORIES.map(|name| (name, &directory)));
    } else {
        command.arg("--pipeline-cache").arg(&directory);
    }
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("a run of --first-use ended with {}: {}", output.status, said.trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Directories for caches, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Refusal> {
        let path = std::env::temp_dir().join(format!("wgnorm-first-use-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// A cold run finds an empty directory, and leaves its cache there; that of the first is what later runs find.
    fn directory(&self, state: State, run: u32) -> PathBuf {
        self.0.join(match state {
            State::Cold => format!("cold {run}"),
            State::PipelineCache => "cold 0".to_owned(),
            State::DriverCache => "driver".to_owned(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
