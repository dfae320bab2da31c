//! The program under a driver whose GPU is not there, with the layer that writes down what the compiler says.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::Refusal;
use crate::drivers::Drivers;
use crate::isa::{self, Code, Dialect};
use crate::statistics::Statistics;
use crate::targets::Target;

/// What is run, and what is loaded into it.
pub struct Programs {
    pub wgnorm: PathBuf,
    pub layer: PathBuf,
}

/// What `wgnorm kernels --json` writes.
#[derive(Deserialize)]
pub struct Plans {
    pub adapter: Adapter,
    pub operations: Vec<Operation>,
    pub kernels: Vec<Kernel>,
}

#[derive(Deserialize)]
pub struct Adapter {
    pub name: String,
    pub driver: String,
}

#[derive(Deserialize)]
pub struct Operation {
    pub problem: String,
    pub operation: String,
    pub floor_bytes: u64,
    pub dispatches: Vec<Dispatch>,
}

#[derive(Deserialize)]
pub struct Dispatch {
    pub kernel: usize,
    pub workgroups: [u64; 2],
    pub bytes: u64,
}

#[derive(Deserialize)]
pub struct Kernel {
    pub name: String,
    pub workgroup_size: u64,
}

/// What a GPU would run, and what its compiler says of it.
pub struct Compiled {
    pub plans: Plans,
    /// By the kernel's name.
    pub kernels: HashMap<String, (Statistics, Option<Code>)>,
}

/// Compiles all kernels for a target, or reads what was compiled before.
pub fn compile(
    target: &Target,
    drivers: &Drivers,
    programs: &Programs,
    directory: &Path,
    args: &[String],
    again: bool,
) -> Result<Compiled, Refusal> {
    // What one run has left is no answer to another's question.
    let (asked, question) = (directory.join("asked.txt"), args.join("\n"));
    if again {
        return match fs::read_to_string(&asked) {
            Ok(before) if before == question => read(target, directory),
            _ => {
                Err(format!("{}: the last run was asked for something else, or did not end", target.name)
                    .into())
            }
        };
    }
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    let json = directory.join("kernels.json");
    let printed = directory.join("printed.txt");
    let layers = directory.join("layers");
    fs::create_dir_all(&layers)?;
    fs::write(layers.join("compiled.json"), manifest(&programs.layer))?;

    let mut command = Command::new(drivers.libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&drivers.libraries);
    command.arg("--preload").arg(drivers.libraries.join(format!("lib{}_noop_drm_shim.so", target.shim)));
    command.arg(&programs.wgnorm).arg("kernels").arg("--json").arg(&json).args(args);
    command.envs(target.environment.iter().copied());
    command.env("VK_DRIVER_FILES", drivers.manifests.join(format!("{}.json", target.driver)));
    command.env("VK_INSTANCE_LAYERS", "VK_LAYER_wgnorm_compiled").env("VK_LAYER_PATH", &layers);
    command.env("GPUS_DUMP", directory).env("MESA_SHADER_CACHE_DISABLE", "true");
    // Names of pipelines are for debuggers. Mesa's device selection asks Wayland, which complains if there is no such directory.
    command.env("WGPU_DEBUG", "1").env("XDG_RUNTIME_DIR", std::env::temp_dir());
    // Drivers print to either.
    let file = fs::OpenOptions::new().create(true).append(true).open(&printed)?;
    command.stdout(file.try_clone()?).stderr(file);
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if !status.success() {
        return Err(
            format!("{}: the program ended with {status}; see {}", target.name, printed.display()).into()
        );
    }
    fs::write(asked, question)?;
    read(target, directory)
}

/// What a run has left in a directory.
fn read(target: &Target, directory: &Path) -> Result<Compiled, Refusal> {
    let plans: Plans = serde_json::from_str(&fs::read_to_string(directory.join("kernels.json"))?)?;
    let kernels = read_all(target.dialect, directory, &fs::read_to_string(directory.join("printed.txt"))?)?;
    let named = |kernel: &&Kernel| !kernels.contains_key(&kernel.name);
    if let Some(missing) = plans.kernels.iter().find(named) {
        return Err(format!("{}: nothing was compiled that is named {:?}", target.name, missing.name).into());
    }
    println!("  {} {}: {} kernels", plans.adapter.name, plans.adapter.driver, plans.kernels.len());
    Ok(Compiled { plans, kernels })
}

/// What the loader wants to know of a layer.
fn manifest(library: &Path) -> String {
    let functions = serde_json::json!({
        "vkGetInstanceProcAddr": "compiled_get_instance_proc_addr",
        "vkGetDeviceProcAddr": "compiled_get_device_proc_addr",
    });
    let layer = serde_json::json!({
        "name": "VK_LAYER_wgnorm_compiled", "type": "GLOBAL", "library_path": library, "api_version": "1.3.0",
        "implementation_version": "1", "description": "writes down what compilers say", "functions": functions,
    });
    serde_json::json!({ "file_format_version": "1.0.0", "layer": layer }).to_string()
}

fn read_all(
    dialect: Dialect,
    directory: &Path,
    printed: &str,
) -> Result<HashMap<String, (Statistics, Option<Code>)>, Refusal> {
    let mut kernels = HashMap::new();
    for line in fs::read_to_string(directory.join("names.tsv"))?.lines() {
        let (number, name) = line.split_once('\t').ok_or("names.tsv: no tab")?;
        let statistics = Statistics::parse(&fs::read_to_string(directory.join(format!("{number}.stats")))?);
        let text = match dialect {
            Dialect::Apple => isa::printed_before(printed, number).map(str::to_owned),
            _ => fs::read_to_string(directory.join(format!("{number}.isa"))).ok(),
        };
        kernels.insert(
            name.to_owned(),
            (statistics, text.map(|text| isa::parse(dialect, &text, name.starts_with("map_")))),
        );
    }
    Ok(kernels)
}
