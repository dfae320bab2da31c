//! `wgnorm info`: adapters, the limits that matter, and how the kernels are planned on each.

use std::path::{Path, PathBuf};

use serde::Serialize;
use wgnorm::tuning::{Capabilities, ShaderChecks};
use wgnorm::{Context, GradientTargets, Saved};

use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal, tuning};

#[derive(clap::Args)]
pub struct Args {
    /// Writes the same as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Takes plans that were measured from this file
    #[arg(long, value_name = "FILE")]
    tuning_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Entry {
    adapter: Adapter,
    subgroup_sizes: [u32; 2],
    features: Vec<&'static str>,
    /// How values of float16 are converted.
    float16: Option<&'static str>,
    limits: Option<Limits>,
    plans: Vec<PlanEntry>,
    refused: Option<String>,
}

#[derive(Serialize)]
struct Limits {
    max_binding_bytes: u64,
    max_buffer_bytes: u64,
    max_workgroup_size: u32,
    max_workgroup_bytes: u32,
    storage_alignment: u64,
    max_loop_iterations: u64,
    hardware: Option<HardwareEntry>,
}

/// How wide a GPU is, by its name or as assumed.
#[derive(Serialize)]
struct HardwareEntry {
    known_as: Option<&'static str>,
    units: u32,
    cache_bytes: u64,
    gigabytes_per_second: u32,
}

#[derive(Serialize)]
struct PlanEntry {
    shape: [usize; 4],
    plan: String,
    /// Why, one decision each.
    reasons: Vec<String>,
    kernels: Vec<String>,
}

impl Limits {
    fn of(c: &Capabilities) -> Self {
        Self {
            max_binding_bytes: c.max_binding_bytes,
            max_buffer_bytes: c.max_buffer_bytes,
            max_workgroup_size: c.max_workgroup_size,
            max_workgroup_bytes: c.max_workgroup_bytes,
            storage_alignment: c.storage_alignment,
            max_loop_iterations: c.max_loop_iterations,
            hardware: (!c.cpu).then_some(HardwareEntry {
                known_as: c.hardware.known_as,
                units: c.hardware.units,
                cache_bytes: c.hardware.cache_bytes,
                gigabytes_per_second: c.hardware.gigabytes_per_second,
            }),
        }
    }
}

/// Shapes whose plans are shown: wide words, and an inner size that is no multiple of four.
const SHAPES: [[usize; 4]; 2] = [[8, 64, 56, 56], [8, 512, 7, 7]];

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let adapters = pollster::block_on(wgnorm::tuning::adapters());
    if adapters.is_empty() {
        // The error of opening one tells what to do.
        return Err(crate::open(None).err().map_or("no adapter".to_owned(), |e| e.to_string()).into());
    }
    let describe = |adapter| describe(adapter, args.tuning_file.as_deref());
    let entries = adapters.iter().map(describe).collect::<Result<Vec<_>, _>>()?;
    for entry in &entries {
        print(entry);
    }
    if let Some(path) = &args.json {
        write_json(path, &entries)?;
    }
    Ok(Outcome::Passed)
}

fn describe(adapter: &wgpu::Adapter, tunings: Option<&Path>) -> Result<Entry, Refusal> {
    let info = adapter.get_info();
    let features = adapter.features();
    let known = [
        ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ("subgroups", wgpu::Features::SUBGROUP),
        ("shader-f16", wgpu::Features::SHADER_F16),
        ("pipeline-cache", wgpu::Features::PIPELINE_CACHE),
    ];
    let mut entry = Entry {
        adapter: Adapter::of(&info),
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        features: known.iter().filter(|(_, f)| features.contains(*f)).map(|(name, _)| *name).collect(),
        float16: None,
        limits: None,
        plans: Vec::new(),
        refused: None,
    };
    let opened = match pollster::block_on(Context::from_adapter(adapter, ShaderChecks::default())) {
        Ok(context) => Ok(tuning::with_file(&context, false, tunings)?),
        Err(error) => Err(error),
    };
    match opened.and_then(|context| {
        entry.limits = Some(Limits::of(context.capabilities()));
        entry.float16 = Some(match context.block_on(context.has_exact_f16())? {
            true => "by the device, found exact",
            false => "by integer arithmetic",
        });
        SHAPES.iter().map(|shape| plan(&context, *shape)).collect()
    }) {
        Ok(plans) => entry.plans = plans,
        Err(error) => entry.refused = Some(error.to_string()),
    }
    Ok(entry)
}

fn plan(context: &Context, shape: [usize; 4]) -> Result<PlanEntry, wgnorm::Error> {
    context.block_on(async {
        let layer = wgnorm::BatchNorm::new(context, shape[1], wgnorm::BatchNormOptions::pytorch()).await?;
        let (x, y) = (context.zeros(&shape).await?, context.zeros(&shape).await?);
        let dgamma = context.zeros(&shape[1..2]).await?;
        let saved = Saved::new(context, &x).await?;
        let forward = layer.prepare_train_forward_untracked(&x, &y, Some(&saved)).await?;
        let (dy, dx) = (context.zeros(&shape).await?, context.zeros(&shape).await?);
        let targets = GradientTargets::default().dx(&dx);
        let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
        let layer = layer.freeze();
        let inference = layer.prepare_infer(&x, &y).await?;
        let targets = targets.dgamma(&dgamma);
        let frozen = layer.prepare_backward(&x, &dy, &targets).await?;
        let kernels = [&forward, &backward, &inference, &frozen].into_iter().flat_map(|p| p.kernels());
        Ok(PlanEntry {
            shape,
            plan: forward.plan().map(ToString::to_string).unwrap_or_default(),
            reasons: forward.plan().map(|plan| plan.reasons.clone()).unwrap_or_default(),
            kernels: kernels.map(str::to_owned).collect(),
        })
    })
}

fn print(entry: &Entry) {
    println!("{}", entry.adapter);
    println!("  features          {}", entry.features.join(", "));
    println!("  subgroups         {} to {}", entry.subgroup_sizes[0], entry.subgroup_sizes[1]);
    if let Some(float16) = entry.float16 {
        println!("  float16 converted {float16}");
    }
    if let Some(limits) = &entry.limits {
        println!("  largest binding   {} MiB", limits.max_binding_bytes >> 20);
        println!("  largest buffer    {} MiB", limits.max_buffer_bytes >> 20);
        println!(
            "  workgroup         {} invocations, {} bytes",
            limits.max_workgroup_size, limits.max_workgroup_bytes
        );
        println!("  binding offsets   multiples of {} bytes", limits.storage_alignment);
        println!("  loop iterations   {} per invocation", limits.max_loop_iterations);
        if let Some(hardware) = &limits.hardware {
            let HardwareEntry { known_as, units, cache_bytes, gigabytes_per_second } = hardware;
            let why = known_as.map_or_else(|| "assumed".to_owned(), |name| format!("known as {name}"));
            let cache = cache_bytes >> 20;
            println!(
                "  width             {units} units, {cache} MiB of cache, {gigabytes_per_second} GB/s: {why}"
            );
        }
    }
    for plan in &entry.plans {
        println!("  {:?}: {}", plan.shape, plan.plan);
        for reason in plan.reasons.iter().filter(|reason| reason.starts_with("tuning")) {
            println!("    {reason}");
        }
        for kernel in &plan.kernels {
            println!("    {kernel}");
        }
    }
    if let Some(refused) = &entry.refused {
        println!("  cannot run: {refused}");
    }
}
