//! `wgnorm check` over shaders that may have a fault: what it says, and how long it may take.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::list::Fault;
use crate::{Failure, cargo, program, root, target};

/// Far more than the quick table takes, also on a busy machine: a kernel that runs longer does not end.
const QUICK_LIMIT: Duration = Duration::from_secs(1200);
const FULL_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Cases that come before the others.
const FIRST_CASES: usize = 40;

/// What a check made of a fault.
pub enum Verdict {
    /// The case that failed first, and how.
    Caught { case: String, how: String },
    /// All cases pass.
    NotCaught,
    /// It says nothing of the check, for example because it is not WGSL.
    Mistake(String),
}

impl Verdict {
    pub fn is_caught(&self) -> bool {
        matches!(self, Verdict::Caught { .. })
    }

    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Caught { .. } => "caught",
            Verdict::NotCaught => "NOT CAUGHT",
            Verdict::Mistake(_) => "MISTAKE",
        }
    }
}

/// The program that checks.
pub struct Program {
    path: PathBuf,
    /// Which cases reach which shader file, as it writes that.
    reach: PathBuf,
}

impl Program {
    pub fn build(work: &Path) -> Result<Self, Failure> {
        let manifest = root().join("Cargo.toml").to_string_lossy().into_owned();
        cargo(&["build", "--release", "--package", "wgnorm-cli", "--manifest-path", &manifest], &[])?;
        let path = target()?.join("release").join(format!("wgnorm{}", std::env::consts::EXE_SUFFIX));
        Ok(Self { path, reach: work.join("reach.tsv") })
    }

    /// Checks unchanged shaders, and writes which cases reach which; nothing if that was done since program and shaders last changed.
    pub fn reach(&self, shaders: &Path) -> Result<(), Failure> {
        let inputs = newest(&root().join("shaders")).into_iter().chain(changed(&self.path)).max();
        if changed(&self.reach) > inputs {
            return Ok(());
        }
        println!("unchanged shaders, for which cases reach which");
        let mut check = self.check(shaders);
        // Its name only once all pass.
        let fresh = self.reach.with_extension("new");
        let ended = run(check.arg("--reach").arg(&fresh), QUICK_LIMIT)?;
        match ended.verdict() {
            Verdict::NotCaught => {}
            Verdict::Caught { case, how } => {
                return Err(format!("unchanged shaders fail in {case}: {how}").into());
            }
            Verdict::Mistake(what) => return Err(format!("unchanged shaders: {what}").into()),
        }
        let renamed = fs::rename(&fresh, &self.reach);
        Ok(renamed.map_err(|error| format!("{}: {error}", self.reach.display()))?)
    }

    /// Checks shaders of which one file has a fault. First come a few of the cases that reach it and may show it, from all over the table: its own
    /// order has neighbours that see the same, and those with most variants in front.
    pub fn try_out(&self, shaders: &Path, fault: &Fault, file: &str) -> Result<Verdict, Failure> {
        let reach = fs::read_to_string(&self.reach);
        let reach = reach.map_err(|error| format!("{}: {error}", self.reach.display()))?;
        // Those of a matrix have one variant each, with the kernels that take least to compile.
        let in_matrix = |line: &&str| line.contains(".matrix.");
        let shows = |line: &&str| {
            let parts = line.split_once('\t');
            parts.is_some_and(|(reached, case)| reached == file && case.contains(&fault.shown_by))
        };
        let mut reached: Vec<&str> = reach.lines().filter(shows).collect();
        if fault.shown_by.is_empty() && reached.iter().any(in_matrix) {
            reached.retain(in_matrix);
        }
        let few = reached.iter().step_by(reached.len().div_ceil(FIRST_CASES).max(1));
        let first = self.reach.with_file_name("first.tsv");
        let mut lines: String = few.map(|line| format!("{line}\n")).collect();
        if lines.is_empty() {
            // Cases that are made of several operations do not say which kernels these have: the one that is named.
            lines = format!("{file}\t{}\n", fault.shown_by);
        }
        super::write(first.clone(), &lines)?;
        let mut check = self.check(shaders);
        check.arg("--first").arg(&first).arg(file);
        let full = fault.only_full.is_some();
        if full {
            check.arg("--full");
        }
        Ok(run(&mut check, if full { FULL_LIMIT } else { QUICK_LIMIT })?.verdict())
    }

    fn check(&self, shaders: &Path) -> Command {
        let mut command = program(&self.path);
        command.arg("check").arg("--shaders").arg(shaders);
        command
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When anything in a directory last changed.
fn newest(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of_entry = |path: PathBuf| if path.is_dir() { newest(&path) } else { changed(&path) };
    entries.filter_map(|entry| of_entry(entry.path())).max()
}

/// How a program ended, and what it had said.
struct Ended {
    /// None where it had to be ended.
    status: Option<ExitStatus>,
    out: String,
    err: String,
}

/// Runs a program, for some time.
fn run(command: &mut Command, limit: Duration) -> Result<Ended, Failure> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child =
        child.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    // Both are read at once: a pipe that nobody reads fills up, and the program waits.
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait().map_err(|error| format!("cannot wait for the check: {error}"))? {
            Some(status) => break Some(status),
            None if Instant::now() < end => thread::sleep(Duration::from_millis(50)),
            None => {
                // It may just have ended.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let read = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok(Ended { status, out: read(out), err: read(err) })
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Ended {
    fn verdict(&self) -> Verdict {
        // "FAILED case layout variant output: what; kernels: which"
        let failed = self.out.lines().find_map(|line| line.strip_prefix("FAILED "));
        let (case, how) = failed.and_then(|line| line.split_once(' ')).unwrap_or(("no case", ""));
        let caught = |how: &str| Verdict::Caught { case: case.to_owned(), how: how.to_owned() };
        match self.status {
            Some(status) if status.success() => Verdict::NotCaught,
            // wgpu refuses what is not WGSL, or exceeds what a device has.
            _ if how.contains("refused the pipeline") => Verdict::Mistake(self.out.clone()),
            _ if failed.is_some() => caught(how.split("; kernels:").next().unwrap_or(how)),
            None => caught("does not end"),
            // It refused what it was given, or somebody ended it.
            Some(status) => Verdict::Mistake(format!("ends with {status}\n{}", self.err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn verdicts_are_read_from_what_a_program_says() {
        let verdict = |script: &str, limit| {
            let mut command = Command::new("sh");
            run(command.args(["-c", script]), Duration::from_millis(limit)).ok().unwrap().verdict()
        };
        assert!(matches!(verdict("echo 3 cases", 10_000), Verdict::NotCaught));
        let line = "FAILED builtin.eval.x channels_first policy y: index 3: got 1; kernels: map";
        let Verdict::Caught { case, how } = verdict(&format!("echo '{line}'; exit 1"), 10_000) else {
            panic!("not caught");
        };
        assert_eq!(
            (case.as_str(), how.as_str()),
            ("builtin.eval.x", "channels_first policy y: index 3: got 1")
        );
        let refused = "FAILED x y wgpu refused the pipeline: Validation Error";
        assert!(matches!(verdict(&format!("echo '{refused}'; exit 1"), 10_000), Verdict::Mistake(_)));
        assert!(
            matches!(verdict("echo no such file >&2; exit 2", 10_000), Verdict::Mistake(what) if what.contains("no such"))
        );
        assert!(matches!(verdict("kill $$", 10_000), Verdict::Mistake(_)));
        assert!(matches!(verdict("exec sleep 60", 50), Verdict::Caught { how, .. } if how == "does not end"));
    }
}
