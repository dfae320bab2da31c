//! `cargo xtask web`: builds and tests the package of `web/`, in node on Dawn.

use std::path::Path;
use std::process::Command;

use super::setup::on_path;
use super::{Failure, root};

/// What is built: the planner as wasm.
const TARGET: &str = "wasm32-unknown-unknown";

pub fn run() -> Result<(), Failure> {
    check_node()?;
    if !on_path("rustup") && !has_target() {
        return Err(format!("there is no rustup to install the target {TARGET} with; install it").into());
    }
    if on_path("rustup") {
        command(Command::new("rustup").args(["target", "add", TARGET]))?;
    }
    let web = root().join("web");
    for args in [&["ci", "--no-audit", "--no-fund"][..], &["run", "build"], &["test"]] {
        npm(&web, args)?;
    }
    Ok(())
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

fn npm(web: &Path, args: &[&str]) -> Result<(), Failure> {
    println!("npm {}", args.join(" "));
    let program = if cfg!(windows) { "npm.cmd" } else { "npm" };
    command(Command::new(program).args(args).current_dir(web))
}

fn command(command: &mut Command) -> Result<(), Failure> {
    let what = format!("{command:?}");
    let status = command.status().map_err(|error| format!("cannot run {what}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure { message: format!("{what} ended with {status}"), code })
}
