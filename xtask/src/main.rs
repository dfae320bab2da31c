//! `cargo xtask setup | test | bench | faults | peers | gpus | web | tint | burn | proof`: sets up a fresh machine, then does the work.
//!
//! Linux needs a Vulkan driver; where there is none, Mesa's software driver (lavapipe) is installed through the system's
//! package manager, and for the tests Open MPI. macOS (Metal) and Windows (DirectX 12) need nothing.

mod burn;
mod faults;
mod gate;
#[cfg(test)]
mod house;
mod peers;
mod setup;
mod tint;
mod web;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask COMMAND

  setup [mpi]     installs a Vulkan driver if this machine has none; with `mpi`, what the feature `mpi` needs too
  test [--full] [ARGS]
                  setup mpi, then all tests (ARGS go to `cargo test`); without MPI where it cannot be installed. With
                  --full also what takes longer: tests that are left out of the quick gate, `wgnorm check --full`,
                  the package for the web
  bench [ARGS]    setup, then the ResNet-50 benchmark (ARGS go to `wgnorm bench`)
  faults [TEXT]   setup, then deliberate faults in the shaders, one at a time: does `wgnorm check` find each?
                  (TEXT: those that have it in words, text or file; --full: also those that only the full table finds)
  peers [ARGS]    setup, then the same cases by this crate, burn and PyTorch, and all of them in a table
                  (--python PROGRAM or $PYTHON has torch; other ARGS go to `wgnorm bench`)
  gpus [TARGET…]  what the compilers of GPUs that are not here make of the kernels, by Mesa's drivers: docs/gpu-kernels.tsv,
                  docs/GPUS.md (a Debian, or a system with apt and Debian's keyring, and gcc; xtask/gpus); --windows:
                  what FXC makes of them, under Wine: docs/gpu-kernels-fxc.tsv
  web             builds and tests the package for browsers, in Node.js on Dawn and in Chromium (web/)
  tint            every text that a kernel can have through Tint, the compiler of Chrome, in Node.js (minutes)
  burn            builds and tests the layers of burn (integrations/burn), with fusion and without
  proof [ARGS]    claims of the literature, each trained here: docs/PROOF.md (names of experiments, --quick, --list; npm
                  fetches the digits)";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match command.as_str() {
        "setup" if rest.is_empty() => setup::vulkan(),
        "setup" if *rest == ["mpi"] => setup::vulkan().and_then(|()| setup::mpi()).map(|_| ()),
        "test" => setup::vulkan().and_then(|()| setup::mpi()).and_then(|mpi| gate::run(mpi, rest)),
        "bench" => setup::vulkan()
            .and_then(|()| cargo(&["run", "--release", "--package", "wgnorm-cli", "--", "bench"], rest)),
        "faults" => setup::vulkan().and_then(|()| faults::run(rest)),
        "peers" => setup::vulkan().and_then(|()| peers::run(rest)),
        "gpus" => cargo(&["run", "--quiet", "--package", "wgnorm-gpus", "--bin", "gpus", "--"], rest),
        "web" if rest.is_empty() => web::run(),
        "tint" if rest.is_empty() => tint::run(),
        "proof" => setup::vulkan().and_then(|()| burn::proof(rest)),
        "burn" if rest.is_empty() => setup::vulkan().and_then(|()| burn::run()),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, code }) => {
            eprintln!("xtask: {message}");
            ExitCode::from(code)
        }
    }
}

struct Failure {
    message: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, code: 1 }
    }
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// Where cargo builds. Commands run where the user is; relative paths are the user's.
fn target() -> Result<PathBuf, Failure> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(std::path::absolute(&target).map_err(|error| format!("{}: {error}", target.display()))?)
}

/// The cargo that runs this.
fn cargo_command() -> Command {
    program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that opens a device, or runs one that does.
fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    if cfg!(target_os = "linux") && env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa's device selection asks Wayland, which complains on every start if this is not set.
        command.env("XDG_RUNTIME_DIR", env::temp_dir());
    }
    command
}

/// Runs cargo with this process's exit code as its own.
fn cargo(args: &[&str], rest: &[String]) -> Result<(), Failure> {
    let mut command = cargo_command();
    command.args(args).args(rest);
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure { message: format!("cargo {} ended with {status}", args.join(" ")), code })
}
