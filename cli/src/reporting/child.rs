//! A process within a time limit, whose output goes to files.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::steps::{Program, Step};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Its time was over; what it had written by then counts.
    CutOff,
    /// Why.
    Failed(String),
    /// Why it was not begun.
    Skipped(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::CutOff => f.write_str("cut off"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Skipped(why) => write!(f, "not begun: {why}"),
        }
    }
}

/// Less than any step needs.
const LEAST: Duration = Duration::from_millis(200);

/// Runs a step in the folder, and tells now and then that it goes on.
pub fn run(step: &Step, dir: &Path, limit: Duration, tick: impl Fn()) -> Ended {
    if limit < LEAST {
        return Ended::Skipped("the time is over".to_owned());
    }
    let mut command = match &step.program {
        Program::Own => match std::env::current_exe() {
            Ok(program) => Command::new(program),
            Err(error) => return Ended::Failed(format!("where this program is: {error}")),
        },
        Program::Python(program) => Command::new(program),
    };
    let [printed, complained] = ["txt", "err"].map(|ending| dir.join(format!("{}.{ending}", step.name)));
    let files = File::create(&printed).and_then(|out| Ok((out, File::create(&complained)?)));
    let (out, err) = match files {
        Ok(files) => files,
        Err(error) => return Ended::Failed(format!("cannot write {}: {error}", printed.display())),
    };
    command.args(&step.args).current_dir(dir).stdin(Stdio::null()).stdout(out).stderr(err);
    command.env("PYTHONUNBUFFERED", "1");
    let started = Instant::now();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ended::Failed(error.to_string()),
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ended::Done,
            Ok(Some(status)) => {
                let complaints = std::fs::read_to_string(&complained).unwrap_or_default();
                let last = complaints.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
                return Ended::Failed(format!("{status} {last}").trim_end().to_owned());
            }
            Ok(None) if started.elapsed() < limit => {}
            waited => {
                // It may have ended in between.
                let _ = child.kill();
                let _ = child.wait();
                return match waited {
                    Ok(_) => Ended::CutOff,
                    Err(error) => Ended::Failed(error.to_string()),
                };
            }
        }
        tick();
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::steps::Kind;
    use super::*;

    fn ran(code: &str, limit: Duration) -> (Ended, String) {
        let dir = std::env::temp_dir().join(format!("wgnorm-child-{}-{}", std::process::id(), code.len()));
        std::fs::create_dir_all(&dir).unwrap();
        let step = Step {
            kind: Kind::Peer,
            title: String::new(),
            name: "step".to_owned(),
            program: Program::Python("sh".to_owned()),
            args: vec!["-c".to_owned(), code.to_owned()],
            needs: None,
            weight: 1.0,
        };
        let ended = run(&step, &dir, limit, || {});
        let printed = std::fs::read_to_string(dir.join("step.txt")).unwrap_or_default();
        let complained = std::fs::read_to_string(dir.join("step.err")).unwrap_or_default();
        let printed = printed + &complained;
        std::fs::remove_dir_all(&dir).unwrap();
        (ended, printed)
    }

    #[test]
    fn a_step_ends_by_itself_or_when_its_time_is_over() {
        let long = Duration::from_secs(60);
        assert_eq!(ran("echo one; echo two >&2", long), (Ended::Done, "one\ntwo\n".to_owned()));
        let failed = ran("echo why >&2; exit 3", long).0;
        assert!(
            matches!(&failed, Ended::Failed(why) if why.contains('3') && why.ends_with("why")),
            "{failed:?}"
        );
        assert_eq!(
            ran("echo one; sleep 600", Duration::from_millis(600)),
            (Ended::CutOff, "one\n".to_owned())
        );
        assert!(matches!(ran("echo none", Duration::ZERO).0, Ended::Skipped(_)));
    }
}
