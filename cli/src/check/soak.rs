//! `wgnorm check --soak MINUTES`: problems of all kinds, one number after the other, on two devices in turn; what they leave behind is watched.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use wgnorm::eval::{self, Outputs, Plan, table};
use wgnorm::{Context, ContextOptions};

use super::job::KEPT;
use crate::report::{Adapter, write_json};
use crate::{Outcome, Refusal};

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_secs(30);

/// A problem that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// Of so many problems one is run on the other device too, which must give the same bits.
const REPEATED: u64 = 8;

/// What a run of an hour may need more in its second half than in its first, of that and in bytes: kernels that a driver keeps, problems of different sizes.
const GROWTH: f64 = 1.25;
const SLACK: u64 = 64 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// Runs problems of all kinds, by number, for so many minutes on two devices in turn, and watches memory; a failure is a line that repeats it
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["cases", "full", "case", "filter"])]
    soak: Option<f64>,
    /// The number of the first of them
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "soak")]
    first_number: u64,
}

/// What was seen at a time.
#[derive(Clone, Copy, Serialize)]
struct Look {
    minutes: f64,
    problems: u64,
    failed: u64,
    /// Bytes of the process in memory, and of buffers on the devices; `null` where nothing tells.
    resident: Option<u64>,
    buffers: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    adapter: Adapter,
    first_number: u64,
    looks: Vec<Look>,
    failures: Vec<String>,
}

/// What the threads have in common.
struct Soak {
    contexts: [Context; 2],
    first: u64,
    next: AtomicU64,
    done: AtomicU64,
    ends: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// What each thread is at, and since when.
    at: [Mutex<Option<(String, Instant)>>; 2],
}

impl Args {
    pub fn minutes(&self) -> Option<f64> {
        self.soak
    }
}

pub fn run(
    args: &Args,
    minutes: f64,
    options: &ContextOptions,
    json: Option<&PathBuf>,
) -> Result<Outcome, Refusal> {
    if !minutes.is_finite() || minutes <= 0.0 {
        return Err(format!("--soak {minutes}: expected minutes, more than 0").into());
    }
    let open = || pollster::block_on(Context::headless_with(options));
    let soak = Soak {
        contexts: [open()?, open()?],
        first: args.first_number,
        next: AtomicU64::new(args.first_number),
        done: AtomicU64::new(0),
        ends: AtomicBool::new(false),
        failures: Mutex::default(),
        at: [const { Mutex::new(None) }; 2],
    };
    let adapter = Adapter::of_context(&soak.contexts[0]);
    println!("problems from number {} on, for {minutes} minutes, on two devices: {adapter}", soak.first);
    let started = Instant::now();
    let ends_at = started + Duration::from_secs_f64(60.0 * minutes);
    let mut looks = Vec::new();
    let hung = thread::scope(|scope| {
        let workers = [0, 1].map(|number| {
            let soak = &soak;
            scope.spawn(move || soak.work(number))
        });
        let mut next = started + LOOK;
        while Instant::now() < ends_at && workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(200));
            if let Some(line) = soak.hangs() {
                return Some(line);
            }
            if Instant::now() >= next {
                looks.push(soak.look(started));
                println!("{}", looks[looks.len() - 1]);
                next += LOOK;
            }
        }
        soak.ends.store(true, Ordering::Relaxed);
        for (thread, worker) in workers.into_iter().enumerate() {
            if worker.join().is_err() {
                let at = soak.at[thread].lock().map(|at| at.clone()).unwrap_or_default();
                soak.fails("panics", &at.map_or(String::new(), |(line, _)| line));
            }
        }
        None
    });
    if let Some(line) = hung {
        println!("FAILED it hangs\n    wgnorm check --case '{line}'");
        // Its thread can never be joined.
        std::process::exit(1);
    }
    looks.push(soak.look(started));
    println!("{}", looks[looks.len() - 1]);
    let mut failures = soak.failures.into_inner().unwrap_or_default();
    failures.extend(growth(&looks, "the process", |look| look.resident));
    failures.extend(growth(&looks, "buffers on the devices", |look| look.buffers));
    let (problems, failed) = (soak.done.into_inner(), failures.len());
    println!("{problems} problems, {failed} failures, {:.1} minutes", started.elapsed().as_secs_f64() / 60.0);
    if let Some(path) = json {
        write_json(path, &Report { adapter, first_number: soak.first, looks, failures })?;
    }
    Ok(if failed > 0 { Outcome::Failed } else { Outcome::Passed })
}

impl Soak {
    fn work(&self, thread: usize) {
        while !self.ends.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.set(thread, Some((format!("number {number}"), Instant::now())));
            let (problem, draw) = eval::sample(number);
            let plan = Plan::of(&problem.spec);
            let line = table::line(&problem.spec, &draw, &plan);
            self.set(thread, Some((line.clone(), Instant::now())));
            let own = (number % 2) as usize;
            let on = |device: usize| {
                let context = &self.contexts[device];
                let outcome = context.block_on(problem.run_in(context, &plan));
                eval::trim(context, KEPT);
                outcome
            };
            let first = on(own);
            let mut failures = first.failures();
            if number.is_multiple_of(REPEATED) {
                let differ = differing(&first.outputs, &on(1 - own).outputs);
                failures
                    .extend(differ.iter().map(|output| format!("{output}: other bits on the other device")));
            }
            self.set(thread, None);
            self.done.fetch_add(1, Ordering::Relaxed);
            if let Some(failure) = failures.first() {
                self.fails(failure, &line);
            }
        }
    }

    fn fails(&self, how: &str, line: &str) {
        let said = format!("FAILED {how}\n    wgnorm check --case '{line}'");
        println!("{said}");
        self.failures.lock().expect("no thread panics with it").push(said);
    }

    fn set(&self, thread: usize, at: Option<(String, Instant)>) {
        *self.at[thread].lock().expect("no thread panics with it") = at;
    }

    /// The line of a problem that does not end.
    fn hangs(&self) -> Option<String> {
        self.at.iter().find_map(|at| {
            let at = at.lock().expect("no thread panics with it");
            at.as_ref().filter(|(_, since)| since.elapsed() > LONGEST).map(|(line, _)| line.clone())
        })
    }

    fn look(&self, started: Instant) -> Look {
        let reports = self.contexts.each_ref().map(|context| context.device().generate_allocator_report());
        let buffers = reports.iter().map(|report| report.as_ref().map(|report| report.total_allocated_bytes));
        Look {
            minutes: started.elapsed().as_secs_f64() / 60.0,
            problems: self.done.load(Ordering::Relaxed),
            failed: self.failures.lock().map_or(0, |failures| failures.len() as u64),
            resident: memory_stats::memory_stats().map(|memory| memory.physical_mem as u64),
            buffers: buffers.sum(),
        }
    }
}

/// Outputs that differ, or are missing.
fn differing(first: &Outputs, second: &Outputs) -> Vec<String> {
    match first.len() == second.len() {
        true => eval::other_bits(first, second),
        false => vec!["outputs".to_owned()],
    }
}

/// What has grown, from the first half of what was seen to the second.
fn growth(looks: &[Look], what: &str, of: impl Fn(&Look) -> Option<u64>) -> Option<String> {
    let seen: Option<Vec<u64>> = looks.iter().map(of).collect();
    let Some(seen) = seen else {
        println!("nothing tells the memory of {what}: that it does not grow was not checked");
        return None;
    };
    let (before, after) = seen.split_at(seen.len() / 2);
    let most = |seen: &[u64]| seen.iter().copied().max();
    let (before, after) = (most(before)?, most(after)?);
    let grown = after as f64 > before as f64 * GROWTH + SLACK as f64;
    grown.then(|| {
        let said = format!("FAILED the memory of {what} grows: at most {before} bytes, then {after}");
        println!("{said}");
        said
    })
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { minutes, problems, failed, .. } = self;
        let megabytes = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| (bytes >> 20).to_string());
        let (resident, buffers) = (megabytes(self.resident), megabytes(self.buffers));
        write!(
            f,
            "{minutes:5.1} min: {problems} problems, {failed} failed, {resident} MiB of the process, {buffers} MiB of buffers"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_told() {
        let looks = |resident: &[u64]| {
            let look = |&resident| Look {
                minutes: 0.0,
                problems: 0,
                failed: 0,
                resident: Some(resident),
                buffers: None,
            };
            resident.iter().map(look).collect::<Vec<_>>()
        };
        let resident = |look: &Look| look.resident;
        let gib = 1 << 30;
        assert_eq!(growth(&looks(&[gib, gib, gib, gib + SLACK]), "it", resident), None);
        assert!(growth(&looks(&[gib, gib, gib, 2 * gib]), "it", resident).is_some());
        assert_eq!(growth(&looks(&[gib, 2 * gib]), "it", |look| look.buffers), None);
    }
}
