//! `cargo xtask test`: all tests, and where their time went.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Failure, burn, cargo, cargo_command, web};

/// What the feature `mpi` changes.
const FEATURES: [&str; 2] =
    ["wgnorm/eval,wgnorm/safetensors,wgnorm/serde", "wgnorm/eval,wgnorm/safetensors,wgnorm/serde,wgnorm/mpi"];

/// Builds the tests, then runs them. `--full` also runs what takes longer than the quick gate may: tests that are left out of it, and every
/// combination that `wgnorm check --full` has, the package for the web, and the layers of burn. Other arguments go to `cargo test`.
pub fn run(mpi: bool, args: &[String]) -> Result<(), Failure> {
    let full = args.iter().any(|arg| arg == "--full");
    let rest: Vec<String> = args.iter().filter(|arg| *arg != "--full").cloned().collect();
    let test = ["test", "--workspace", "--features", FEATURES[usize::from(mpi)]];
    let with =
        |more: &[&str]| -> Vec<String> { test.iter().chain(more).map(|&arg| arg.to_owned()).collect() };
    // Examples are no tests; the lints build them. Arguments may choose among all that there is.
    let all = rest.is_empty();
    let targets: &[&str] = if all { &["--tests"] } else { &[] };
    let started = Instant::now();
    let mut times = vec![];
    let before_dashes: Vec<String> = rest.iter().take_while(|arg| *arg != "--").cloned().collect();
    cargo(&[&test[..], targets, &["--no-run"]].concat(), &before_dashes)?;
    times.push(("build".to_owned(), started.elapsed()));
    let mut tests: Vec<String> = with(targets).into_iter().chain(rest).collect();
    if full {
        if !tests.iter().any(|arg| arg == "--") {
            tests.push("--".to_owned());
        }
        tests.push("--include-ignored".to_owned());
    }
    let mut result = timed(&tests, full, &mut times);
    if result.is_ok() && all {
        result = timed(&with(&["--doc"]), full, &mut times);
    }
    if result.is_ok() && all {
        let started = Instant::now();
        result = web::smoke();
        times.push(("the planner as wasm".to_owned(), started.elapsed()));
    }
    if result.is_ok() && full {
        for cases in [&[][..], &["--cases", "tests/data/conformance"]] {
            let started = Instant::now();
            cargo(
                &[&["run", "--release", "--package", "wgnorm-cli", "--", "check", "--full"], cases].concat(),
                &[],
            )?;
            times.push((format!("wgnorm check --full {}", cases.join(" ")), started.elapsed()));
        }
        // A workspace of its own, with a large crate to build.
        let started = Instant::now();
        cargo(&["test", "--manifest-path", "tests/wesl/Cargo.toml"], &[])?;
        times.push(("tests/wesl".to_owned(), started.elapsed()));
        let started = Instant::now();
        web::run()?;
        times.push(("web".to_owned(), started.elapsed()));
        let started = Instant::now();
        burn::run()?;
        times.push(("burn".to_owned(), started.elapsed()));
    }
    println!("\nwhere the time went:");
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    for (what, time) in times.iter().filter(|(_, time)| time.as_millis() > 500) {
        println!("{:8.1} s  {what}", time.as_secs_f64());
    }
    println!("{:8.1} s  in all", started.elapsed().as_secs_f64());
    result
}

/// Runs cargo, and takes the time between one of its lines that begin with Running or Doc-tests and the next.
fn timed(args: &[String], full: bool, times: &mut Vec<(String, Duration)>) -> Result<(), Failure> {
    let mut command = cargo_command();
    command.args(args).stderr(Stdio::piped());
    if !full && std::env::var_os("GALLIVM_PERF").is_none() {
        // Mesa's software driver spends most of the time on optimizing code that runs for milliseconds. The full gate lets it.
        command.env("GALLIVM_PERF", "nopt");
    }
    let mut child = command.spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
    let stderr = child.stderr.take().ok_or_else(|| "cargo has no stderr".to_owned())?;
    let mut open: Option<(String, Instant)> = None;
    let mut close = |open: &mut Option<(String, Instant)>| {
        if let Some((what, since)) = open.take() {
            times.push((what, since.elapsed()));
        }
    };
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        eprintln!("{line}");
        let line = line.trim();
        if let Some(what) = line.strip_prefix("Running ").or(line.strip_prefix("Doc-tests ")) {
            close(&mut open);
            let what = what.split(" (").next().unwrap_or(what);
            let what =
                if line.starts_with("Doc") { format!("documentation of {what}") } else { what.to_owned() };
            open = Some((what, Instant::now()));
        }
    }
    close(&mut open);
    let status = child.wait().map_err(|error| format!("cargo: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure { message: format!("cargo test ended with {status}"), code })
}
