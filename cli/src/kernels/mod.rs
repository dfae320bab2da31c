//! `wgnorm kernels`: what runs for the norms of common models on an adapter: plans and kernels, compiled and not run.

mod models;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wgnorm::recipe::{BindingType, Kernel, Recipe, Recipes};
use wgnorm::tuning::Capabilities;
use wgnorm::{Context, Spec};

use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal};
use models::Model;

#[derive(clap::Args)]
pub struct Args {
    /// Only these models (default: all)
    #[arg(long, value_enum)]
    model: Vec<Model>,
    /// These problems instead of models', as `wgnorm check --case` takes them: "layer 8192x1024 bf16 backward"
    #[arg(long, value_name = "LINE", conflicts_with = "model")]
    problem: Vec<Spec>,
    /// Only problems whose line has this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Opens the first adapter with this in its name
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Whose limits plans keep within
    #[arg(long, value_enum, default_value = "own")]
    limits: Limits,
    /// Makes kernels of the modules in this directory instead of those that are built in
    #[arg(long, value_name = "DIR")]
    shaders: Option<PathBuf>,
    /// Writes operations and kernels as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the text of each kernel to a file of its own, NUMBER.wgsl
    #[arg(long, value_name = "DIR")]
    text: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Limits {
    /// The adapter's
    Own,
    /// Those of every WebGPU device, without subgroups, on the adapter
    Webgpu,
    /// Those of DirectX 12, without subgroups; nothing is compiled, and no adapter needed
    Dx12,
}

#[derive(Serialize)]
struct Report {
    /// `null` where none was needed.
    adapter: Option<Adapter>,
    operations: Vec<Operation>,
    kernels: Vec<KernelEntry>,
}

/// A pass of a problem.
#[derive(Serialize)]
struct Operation {
    problem: String,
    /// What it does: train_forward, …
    operation: &'static str,
    floor_bytes: u64,
    plan_bytes: u64,
    dispatches: Vec<Dispatch>,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Dispatch {
    /// By its place among the kernels.
    kernel: usize,
    workgroups: [u32; 2],
    /// Bytes of all that it binds.
    bytes: u64,
}

#[derive(Serialize)]
struct KernelEntry {
    name: String,
    entry_point: String,
    workgroup_size: u32,
    constants: Vec<(String, f64)>,
    /// Numbers, and how each is seen: uniform, read, read_write.
    bindings: Vec<(u32, &'static str)>,
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    if let Some(directory) = &args.shaders {
        wgnorm::eval::read_shaders(directory)?;
    }
    let models = match &args.model {
        _ if !args.problem.is_empty() => &[],
        none if none.is_empty() => Model::value_variants(),
        some => some,
    };
    let mut specs = args.problem.clone();
    for model in models {
        specs.extend(model.specs()?);
    }
    specs.retain(|spec| spec.to_string().contains(&args.filter));
    if specs.is_empty() {
        return Err(format!("no problem has {:?} in its line", args.filter).into());
    }
    let context = match args.limits {
        Limits::Own => Some(crate::open(args.adapter.as_deref())?),
        Limits::Webgpu => Some(with_default_limits(args.adapter.as_deref())?),
        Limits::Dx12 => None,
    };
    let adapter = context.as_ref().map(Adapter::of_context);
    if let Some(adapter) = &adapter {
        println!("on {adapter}");
    }
    let mut kernels = Kernels::default();
    let mut operations = Vec::new();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template");
    let progress = ProgressBar::new(specs.len() as u64).with_style(style);
    for spec in &specs {
        progress.set_message(spec.to_string());
        let recipes = match &context {
            Some(context) => {
                context.block_on(context.warm_up(std::slice::from_ref(spec)))?;
                context.block_on(spec.recipes_on(context))?
            }
            None => spec.recipes(&dx12())?,
        };
        let Recipes { forward, backward, .. } = recipes;
        operations
            .extend([Some(forward), backward].into_iter().flatten().map(|recipe| kernels.note(spec, recipe)));
        progress.inc(1);
    }
    progress.finish_and_clear();
    if args.json.is_none() && args.text.is_none() {
        operations.iter().for_each(|operation| kernels.print(operation));
    }
    println!("{} operations, {} kernels", operations.len(), kernels.all.len());
    if let Some(directory) = &args.text {
        kernels.write(directory)?;
    }
    if let Some(path) = &args.json {
        let kernels = kernels.all.iter().map(KernelEntry::of).collect();
        write_json(path, &Report { adapter, operations, kernels })?;
    }
    Ok(Outcome::Passed)
}

/// What DirectX 12 gives at least where its older compiler is in use, which knows no subgroups.
fn dx12() -> Capabilities {
    let mut capabilities = Capabilities::webgpu();
    capabilities.max_workgroup_size = 1024;
    capabilities.max_workgroup_bytes = 32768;
    capabilities.max_binding_bytes = ((1 << 31) - 1) & !15;
    capabilities.max_buffer_bytes = 1 << 32;
    capabilities.storage_alignment = 16;
    capabilities
}

/// The adapter, as a page in a browser that asks for nothing has it.
fn with_default_limits(name: Option<&str>) -> Result<Context, Refusal> {
    let adapters = pollster::block_on(wgnorm::tuning::adapters());
    let named = |adapter: &&wgpu::Adapter| name.is_none_or(|name| adapter.get_info().name.contains(name));
    let adapter = adapters.iter().find(named).ok_or("no such adapter; `wgnorm info` lists all")?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    Ok(Context::from_wgpu(device, queue)?)
}

/// Kernels, each once.
#[derive(Default)]
struct Kernels {
    all: Vec<Kernel>,
    places: HashMap<String, usize>,
}

impl Kernels {
    fn note(&mut self, spec: &Spec, recipe: Recipe) -> Operation {
        let places: Vec<usize> = recipe.kernels.into_iter().map(|kernel| self.place_of(kernel)).collect();
        let dispatches = recipe.dispatches.iter();
        Operation {
            problem: spec.to_string(),
            operation: recipe.op.name(),
            floor_bytes: recipe.floor_bytes,
            plan_bytes: recipe.plan_bytes,
            dispatches: dispatches
                .map(|dispatch| Dispatch {
                    kernel: places[dispatch.kernel],
                    workgroups: dispatch.workgroups,
                    bytes: dispatch.bindings.iter().map(|binding| binding.bytes).sum(),
                })
                .collect(),
            reasons: recipe.reasons,
        }
    }

    fn place_of(&mut self, kernel: Kernel) -> usize {
        let next = self.all.len();
        *self.places.entry(kernel.name.clone()).or_insert_with(|| {
            self.all.push(kernel);
            next
        })
    }

    fn print(&self, operation: &Operation) {
        println!("{}: {}", operation.problem, operation.operation);
        for Dispatch { kernel, workgroups: [x, y], .. } in &operation.dispatches {
            println!("  {x} x {y} of {}", self.all[*kernel].name);
        }
    }

    fn write(&self, directory: &Path) -> Result<(), Refusal> {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for (number, kernel) in self.all.iter().enumerate() {
            let path = directory.join(format!("{number:04}.wgsl"));
            std::fs::write(&path, &kernel.wgsl).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

impl KernelEntry {
    fn of(kernel: &Kernel) -> Self {
        let seen = |binding: BindingType| match binding {
            BindingType::Uniform => "uniform",
            BindingType::Read => "read",
            BindingType::ReadWrite => "read_write",
        };
        let size = kernel.constants.iter().find(|(name, _)| name == "WORKGROUP_SIZE");
        Self {
            name: kernel.name.clone(),
            entry_point: kernel.entry_point.clone(),
            workgroup_size: size.map_or(0, |(_, size)| *size as u32),
            constants: kernel.constants.clone(),
            bindings: kernel.bindings.iter().map(|&(number, kind)| (number, seen(kind))).collect(),
        }
    }
}
