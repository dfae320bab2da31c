//! `cargo xtask web`: builds and tests the package of `web/` and its page, in Node.js on Dawn and in Chromium.

use std::path::Path;
use std::process::Command;

use super::setup::{node, on_path};
use super::{Failure, cargo, root, target};

/// What is built: the planner as wasm.
const TARGET: &str = "wasm32-unknown-unknown";

pub fn run() -> Result<(), Failure> {
    install()?;
    add_target()?;
    npm(&["run", "build"])?;
    npm(&["test"])
}

/// What the package is built and tested with.
pub fn install() -> Result<(), Failure> {
    check_node()?;
    npm(&["ci", "--no-audit", "--no-fund"])
}

/// Builds the planner alone and asks it for a few plans, where there is Node.js.
pub fn smoke() -> Result<(), Failure> {
    if !node()? {
        return Ok(());
    }
    add_target()?;
    cargo(&["build", "--package", "wgnorm-planner", "--target", TARGET], &[])?;
    let planner = target()?.join(TARGET).join("debug/wgnorm_planner.wasm");
    command(Command::new("node").arg(root().join("web/test/smoke.mjs")).arg(planner))
}

/// Makes sure that wasm can be built.
fn add_target() -> Result<(), Failure> {
    match on_path("rustup") {
        true => command(Command::new("rustup").args(["target", "add", TARGET])),
        false if has_target() => Ok(()),
        false => Err(format!("there is no rustup to install the target {TARGET} with; install it").into()),
    }
}

/// Requires node in a version that the package's tests run in.
fn check_node() -> Result<(), Failure> {
    const LEAST: u32 = 20;
    let output = Command::new("node").arg("--version").output();
    let version =
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= LEAST => Ok(()),
        _ => {
            let got = if version.is_empty() { "none" } else { &version };
            Err(format!(
                "the web package needs Node.js {LEAST} or newer with npm, found {got}: https://nodejs.org"
            )
            .into())
        }
    }
}

/// Whether rustc has the standard library for it.
fn has_target() -> bool {
    let libdir = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    libdir.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

fn npm(args: &[&str]) -> Result<(), Failure> {
    println!("npm {}", args.join(" "));
    let program = if cfg!(windows) { "npm.cmd" } else { "npm" };
    command(Command::new(program).args(args).current_dir(root().join("web")))
}

/// Runs a command with this process's exit code as its own.
pub fn command(command: &mut Command) -> Result<(), Failure> {
    let what = format!("{command:?}");
    let status = command.status().map_err(|error| format!("cannot run {what}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure { message: format!("{what} ended with {status}"), code })
}
