//! `cargo xtask peers`: this crate, burn (with its own layers and with this crate's) and PyTorch over the same cases, one after the other, and the table.
//!
//! Everything goes to `target/peers/`. What a peer needs and this machine lacks is said, and the table goes without it.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use super::{Failure, root, target};

/// What is run, from the arguments: `--python FILE` is of this command, the rest goes to `wgnorm bench`.
struct Options {
    python: String,
    bench: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut python = env::var("PYTHON").ok().filter(|python| !python.is_empty());
        let mut bench = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--python" {
                let value = args.next().ok_or_else(|| usage("--python needs a program"))?;
                python = Some(value.clone());
            } else if let Some(value) = arg.strip_prefix("--python=") {
                python = Some(value.to_owned());
            } else if arg == "--json" || arg.starts_with("--json=") {
                return Err(usage("the results always go to target/peers/; there is no --json here"));
            } else {
                bench.push(arg.clone());
            }
        }
        Ok(Self { python: python.unwrap_or_else(|| "python3".to_owned()), bench })
    }
}

fn usage(message: &str) -> Failure {
    Failure { message: message.to_owned(), code: 2 }
}

/// Where the peers' results go.
const PEERS: [&str; 5] = ["burn.json", "wgnorm-in-burn.json", "pytorch.json", "cudnn.json", "compiled.json"];

pub fn run(args: &[String]) -> Result<(), Failure> {
    let options = Options::parse(args)?;
    let results = target()?.join("peers");
    std::fs::create_dir_all(&results).map_err(|error| format!("{}: {error}", results.display()))?;
    let file = |name: &str| results.join(name);
    for name in ["wgnorm.json", "table.json", "table.md"].iter().chain(&PEERS) {
        // What an older run left must not be taken for a result of this one.
        let _ = std::fs::remove_file(file(name));
    }

    let ours = file("wgnorm.json");
    let mut bench = wgnorm();
    bench.arg("bench").args(&options.bench).arg("--json").arg(&ours);
    require(&mut bench)?;

    for (layers, name) in [("burn", "burn.json"), ("wgnorm", "wgnorm-in-burn.json")] {
        let mut burn = super::cargo_command();
        let manifest = root().join("benches/peers/burn/Cargo.toml");
        burn.args(["run", "--release", "--locked", "--manifest-path"]).arg(manifest);
        burn.arg("--target-dir").arg(results.join("build"));
        burn.arg("--").arg("--cases").arg(&ours).arg("--json").arg(file(name)).args(["--layers", layers]);
        told(&mut burn, &format!("burn, with layers of {layers}"))?;
    }

    if has_torch(&options.python) {
        // torch.compile takes a minute or more for the shapes of a network, and on a CPU a compiler of its own.
        let of_cuda: &[_] = &[("cudnn", "cudnn.json"), ("compiled", "compiled.json")];
        let of_cuda = if has_cuda(&options.python) { of_cuda } else { &[] };
        for &(kernels, name) in [("native", "pytorch.json")].iter().chain(of_cuda) {
            let mut torch = Command::new(&options.python);
            torch.arg(root().join("cli/src/peers/pytorch.py")).arg("--cases").arg(&ours);
            torch.arg("--json").arg(file(name)).args(["--kernels", kernels]);
            told(&mut torch, "PyTorch")?;
        }
    } else {
        println!(
            "\nPyTorch is left out: {} has no torch. To have it: {} -m pip install torch numpy, or --python PROGRAM",
            options.python, options.python
        );
    }

    let peers: Vec<PathBuf> = PEERS.map(file).into_iter().filter(|path| path.is_file()).collect();
    if peers.is_empty() {
        return Err("no peer could be timed".to_owned().into());
    }
    println!();
    let mut table = wgnorm();
    table.arg("peers").arg(&ours).args(peers);
    table.arg("--json").arg(file("table.json")).arg("--markdown").arg(file("table.md"));
    require(&mut table)
}

/// The program, built with optimizations.
fn wgnorm() -> Command {
    let mut command = super::cargo_command();
    let manifest = root().join("Cargo.toml");
    command.args(["run", "--quiet", "--release", "--package", "wgnorm-cli", "--manifest-path"]);
    command.arg(manifest).arg("--");
    command
}

/// Runs a command whose failure ends everything.
fn require(command: &mut Command) -> Result<(), Failure> {
    let status = status(command)?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure { message: format!("{} ended with {status}", shown(command)), code })
}

/// Runs the benchmark of a peer. If it fails, the others go on: a table without it is worth having.
fn told(command: &mut Command, name: &str) -> Result<(), Failure> {
    println!("\n{name}: {}", shown(command));
    let status = status(command)?;
    if !status.success() {
        println!("{name} ended with {status}: some of its cases, or all, are missing or were not right");
    }
    Ok(())
}

fn status(command: &mut Command) -> Result<ExitStatus, Failure> {
    let status = command.status();
    Ok(status.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn has_torch(python: &str) -> bool {
    succeeds(python, "import torch")
}

/// Whether this PyTorch has kernels of cuDNN, and a device for them.
fn has_cuda(python: &str) -> bool {
    succeeds(python, "import sys, torch; sys.exit(not (torch.version.cuda and torch.cuda.is_available()))")
}

/// Whether Python can run this.
fn succeeds(python: &str, code: &str) -> bool {
    Command::new(python).args(["-c", code]).output().is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_python_is_this_commands_and_the_rest_is_the_benchmarks() {
        let parse =
            |args: &[&str]| Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--batch", "4", "--python", "py", "--op", "inference"]).ok().unwrap();
        assert_eq!(
            (options.python.as_str(), options.bench.join(" ")),
            ("py", "--batch 4 --op inference".to_owned())
        );
        assert_eq!(parse(&["--python=other"]).ok().unwrap().python, "other");
        for wrong in [&["--python"][..], &["--json", "x"], &["--json=x"]] {
            assert!(parse(wrong).is_err_and(|failure| failure.code == 2), "{wrong:?}");
        }
    }
}
