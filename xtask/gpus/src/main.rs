//! `cargo xtask gpus [TARGET…]`: compiles what the policy chooses for the norms of common models with the compilers of real GPUs, none of which is here,
//! and writes what they say: `docs/gpu-kernels.tsv` and `docs/GPUS.md`.
//!
//! Mesa's drivers open on GPUs that are not there, through its drm shims: nothing is run, but what is compiled is what such a GPU would run.

mod drivers;
mod isa;
mod page;
mod row;
mod run;
mod statistics;
mod targets;
mod windows;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use targets::{TARGETS, Target};

/// Why it cannot go on.
type Refusal = Box<dyn std::error::Error>;

const USAGE: &str = "usage: cargo xtask gpus [TARGET…] [--limits own|webgpu] [--model NAME] [--problem LINE] [--filter TEXT]
                         [--shaders DIR] [--program FILE] [--again]
       cargo xtask gpus --windows [--model NAME] [--problem LINE] [--filter TEXT] [--shaders DIR] [--program FILE]

Compiles the kernels of common models for GPUs that are not here. With all targets and all models writes docs/gpu-kernels.tsv and docs/GPUS.md, else
target/gpus/kernels.tsv. --limits webgpu plans for what every WebGPU device has; --model, --problem, --filter and --shaders go to `wgnorm kernels`. --program takes a wgnorm that
is built already, for what another commit's kernels were. --again reads what the last run has left.
--windows has FXC compile what is planned for DirectX 12, under Wine; with all models writes docs/gpu-kernels-fxc.tsv.";

struct Options {
    targets: Vec<&'static Target>,
    /// For `wgnorm kernels`.
    kernels: Vec<String>,
    /// A `wgnorm` that is built already.
    program: Option<PathBuf>,
    /// Whether the compiler is that of Windows.
    windows: bool,
    /// Whether nothing is compiled, but what the last run has left is read.
    again: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Refusal> {
        let (mut targets, mut kernels, mut program) = (Vec::new(), Vec::new(), None);
        let mut args = args.iter();
        let (mut again, mut windows) = (false, false);
        while let Some(arg) = args.next() {
            let flags = [("--again", &mut again), ("--windows", &mut windows)];
            if let Some((_, flag)) = flags.into_iter().find(|(name, _)| name == arg) {
                *flag = true;
                continue;
            }
            if ["--limits", "--model", "--problem", "--shaders", "--filter", "--program"]
                .contains(&arg.as_str())
            {
                let value = args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))?;
                match arg.as_str() {
                    "--program" => program = Some(std::path::absolute(value)?),
                    _ => kernels.extend([arg.clone(), value.clone()]),
                }
                continue;
            }
            let named = TARGETS.iter().find(|target| target.name == arg);
            let names = || TARGETS.map(|target| target.name).join(", ");
            targets.push(named.ok_or_else(|| format!("{arg:?} is no target ({})\n{USAGE}", names()))?);
        }
        if windows && (again || !targets.is_empty() || kernels.iter().any(|arg| arg == "--limits")) {
            return Err(format!(
                "--windows goes with no targets, limits, and nothing that was left\n{USAGE}"
            )
            .into());
        }
        Ok(Self { targets, kernels, program, windows, again })
    }

    fn is_all(&self) -> bool {
        self.targets.is_empty() && self.kernels.is_empty() && self.program.is_none()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("gpus: {refusal}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), Refusal> {
    let options = Options::parse(args)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no repository")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let work = std::path::absolute(target.join("gpus"))?;
    if options.windows {
        if options.program.is_none() {
            cargo(&["build", "--release", "--package", "wgnorm-cli"])?;
        }
        let built = options.program.clone().unwrap_or_else(|| target.join("release/wgnorm"));
        let table = if options.is_all() {
            root.join("docs/gpu-kernels-fxc.tsv")
        } else {
            work.join("kernels-fxc.tsv")
        };
        return windows::run(&std::path::absolute(built)?, &work, &options.kernels, &table);
    }
    let drivers = drivers::set_up(&work.join("drivers"), &root.join("xtask/gpus/intel"))?;
    if options.program.is_none() && !options.again {
        cargo(&["build", "--release", "--package", "wgnorm-cli"])?;
    }
    cargo(&["build", "--package", "wgnorm-gpus", "--lib"])?;
    let programs = run::Programs {
        wgnorm: std::path::absolute(
            options.program.clone().unwrap_or_else(|| target.join("release/wgnorm")),
        )?,
        layer: std::path::absolute(target.join("debug/libcompiled.so"))?,
    };
    let all: Vec<&Target> = TARGETS.iter().collect();
    let mut rows = Vec::new();
    for target in if options.targets.is_empty() { &all } else { &options.targets } {
        println!("{}: {}", target.name, target.what);
        let compiled = run::compile(
            target,
            &drivers,
            &programs,
            &work.join(target.name),
            &options.kernels,
            options.again,
        )?;
        rows.extend(row::rows(target, &compiled)?);
    }
    let table = row::table(&rows);
    let path = if options.is_all() { root.join("docs/gpu-kernels.tsv") } else { work.join("kernels.tsv") };
    write(&path, &table)?;
    let page = page::page(&rows);
    match options.is_all() {
        true => write(&root.join("docs/GPUS.md"), &page::within(&root.join("docs/GPUS.md"), &page)?)?,
        false => println!("{page}"),
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Refusal> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn cargo(args: &[&str]) -> Result<(), Refusal> {
    done(Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(args))
}

/// Runs a command whose failure ends everything.
fn done(command: &mut Command) -> Result<(), Refusal> {
    let shown = format!("{command:?}");
    let status = command.status().map_err(|error| format!("{shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} ended with {status}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_and_the_rest_goes_to_the_program() {
        let parse =
            |args: &[&str]| Options::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        let options = parse(&["navi31", "--limits", "webgpu", "tgl"]).unwrap();
        assert_eq!(options.targets.iter().map(|target| target.name).collect::<Vec<_>>(), ["navi31", "tgl"]);
        assert_eq!(options.kernels, ["--limits", "webgpu"]);
        assert!(!options.is_all() && parse(&[]).unwrap().is_all());
        assert!(parse(&["gtx"]).is_err() && parse(&["--model"]).is_err());
    }
}
