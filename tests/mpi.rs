//! Ranks under MPI: this program runs itself by `mpirun -n 4` once per scenario. The environment tells a rank its scenario, and
//! where to say that it passed.
//!
//! Arguments that are not options choose scenarios by a part of their names.

use std::env;
use std::fs::{self, File};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;
use wgnorm::collective::{Collective, CollectiveFailure, MpiCollective};
use wgnorm::mpi::Threading;
use wgnorm::mpi::collective::CommunicatorCollectives;
use wgnorm::mpi::topology::{Communicator, SimpleCommunicator};
use wgnorm::{Error, Result};

/// The example, as `mpirun -n 4` runs it.
#[path = "../examples/synchronised_mpi.rs"]
#[expect(dead_code, reason = "it has a main function of its own")]
mod synchronised_mpi;

const RANKS: usize = 4;
/// Longer than a scenario is let run, so whoever waits for it fails the test.
const LONG: Duration = Duration::from_secs(3600);
/// Of scenarios in which a rank is silent.
const SHORT: Duration = Duration::from_secs(6);
/// After which a scenario is killed.
const KILLED_AFTER: Duration = Duration::from_secs(120);

const SCENARIO: &str = "WGNORM_MPI_SCENARIO";
const PASSED: &str = "WGNORM_MPI_PASSED";

struct Scenario {
    name: &'static str,
    threading: Threading,
    run: fn(&SimpleCommunicator),
    /// The ranks that pass; the others are ended by the job.
    passes: &'static [usize],
    /// Whether the job ends by itself rather than by `MPI_Abort`.
    ends: bool,
    /// Whether the job goes on without a rank that ended.
    recovers: bool,
}

const ALL: &[usize] = &[0, 1, 2, 3];

const SCENARIOS: &[Scenario] = &[
    scenario("rounds", rounds),
    scenario("synchronised_batch_norm", |world| synchronised_mpi::run(world).unwrap()),
    Scenario {
        passes: &[0, 1, 3],
        ends: false,
        ..scenario("layer_with_a_silent_rank", layer_with_a_silent_rank)
    },
    scenario("overlapping_calls", overlapping_calls),
    scenario("mismatch", mismatch),
    scenario("fail", fail),
    scenario("fail_while_waiting", fail_while_waiting),
    scenario("too_long", too_long),
    scenario("leave", leave),
    scenario("panic", panic),
    scenario("cancel", cancel),
    scenario("wrong_thread", wrong_thread),
    scenario("own_messages_do_not_mix_in", own_messages_do_not_mix_in),
    Scenario { threading: Threading::Single, ..scenario("one_thread", one_thread) },
    Scenario { passes: &[0, 1, 3], ends: false, ..scenario("stall", stall) },
    Scenario { passes: &[0, 1, 3], ends: false, ..scenario("stall_before", stall_before) },
    Scenario {
        passes: &[0, 1, 3],
        ends: false,
        ..scenario("layer_with_a_stopped_rank", layer_with_a_stopped_rank)
    },
    Scenario {
        passes: &[0, 1, 3],
        ends: false,
        recovers: true,
        ..scenario("layer_with_a_killed_rank", layer_with_a_killed_rank)
    },
];

const fn scenario(name: &'static str, run: fn(&SimpleCommunicator)) -> Scenario {
    Scenario { name, threading: Threading::Funneled, run, passes: ALL, ends: true, recovers: false }
}

fn main() -> ExitCode {
    if let Ok(name) = env::var(SCENARIO) {
        be_a_rank(SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap());
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |scenario: &&Scenario| {
        filters.is_empty() || filters.iter().any(|filter| scenario.name.contains(filter.as_str()))
    };
    if env::args().any(|argument| argument == "--list") {
        SCENARIOS.iter().filter(chosen).for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    println!("running {} of {} scenarios", SCENARIOS.iter().filter(chosen).count(), SCENARIOS.len());
    // Two at a time, because ranks wait in most of them.
    let rest = Mutex::new(SCENARIOS.iter().filter(chosen));
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = rest.lock().unwrap().next() else { break };
                    match launch(scenario) {
                        Ok(()) => println!("mpi {} ... ok", scenario.name),
                        Err(problem) => {
                            println!("mpi {} ... FAILED: {problem}", scenario.name);
                            failed.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if failed.into_inner() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Where a rank says that it passed.
fn passed(directory: &Path, rank: usize) -> PathBuf {
    directory.join(format!("rank-{rank}"))
}

/// Runs a scenario on all ranks, and says what went wrong.
fn launch(scenario: &Scenario) -> Result<(), String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mpi").join(scenario.name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let log = directory.join("log");
    let output = File::create(&log).map_err(|error| error.to_string())?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    let mut job = Command::new("mpirun")
        .args(["-n", &RANKS.to_string()])
        // Else Open MPI ends a job of which a rank was killed.
        .args(scenario.recovers.then_some("--enable-recovery"))
        .arg(env::current_exe().map_err(|error| error.to_string())?)
        .env(SCENARIO, scenario.name)
        .env(PASSED, &directory)
        // Open MPI 4 and 5: on this machine alone, more ranks than cores, in a container as root.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_plm", "isolated")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
        .env("PRTE_ALLOW_RUN_AS_ROOT", "1")
        .env("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|error| format!("cannot run mpirun ({error}); `cargo xtask setup mpi` installs it"))?;
    let begun = Instant::now();
    let status: ExitStatus = loop {
        match job.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < KILLED_AFTER => thread::sleep(Duration::from_millis(20)),
            other => {
                let _ = job.kill();
                let _ = job.wait();
                return Err(format!("killed after {KILLED_AFTER:?} ({other:?})\n{}", text(&log)));
            }
        }
    };
    let silent: Vec<usize> =
        scenario.passes.iter().copied().filter(|&rank| !passed(&directory, rank).exists()).collect();
    // What becomes of a job that goes on is its own affair.
    let ended = status.success() == scenario.ends || scenario.recovers;
    if !silent.is_empty() || !ended {
        return Err(format!("{status}; ranks {silent:?} did not pass\n{}", text(&log)));
    }
    Ok(())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn be_a_rank(scenario: &Scenario) {
    let (universe, _) = wgnorm::mpi::initialize_with_threading(scenario.threading).unwrap();
    let world = universe.world();
    let rank = world.rank() as usize;
    let directory = PathBuf::from(env::var_os(PASSED).unwrap());
    if catch_unwind(AssertUnwindSafe(|| (scenario.run)(&world))).is_err() {
        // The others might wait in MPI_Finalize.
        world.abort(2);
    }
    File::create(passed(&directory, rank)).unwrap();
    if !scenario.ends {
        // As the documentation asks for after a failure like this. One rank does it, when all have said that they passed; in a job that goes on without some,
        // each for itself.
        let ends = rank == 0 || scenario.recovers;
        while !ends || scenario.passes.iter().any(|&rank| !passed(&directory, rank).exists()) {
            thread::sleep(Duration::from_millis(20));
        }
        if scenario.recovers {
            signal("KILL");
        }
        world.abort(3);
    }
}

fn collective(world: &SimpleCommunicator) -> MpiCollective {
    MpiCollective::new(world, LONG).unwrap()
}

/// What a rank gives in a round: mostly 0 to 99 bytes, at times more than MPI sends without asking the receiver.
fn message(rank: usize, round: usize) -> Vec<u8> {
    let length = if round % 50 == 49 { 300_000 } else { round * 7 % 100 };
    (0..length).map(|i| (rank * 31 + round + i) as u8).collect()
}

fn messages(round: usize) -> Vec<Vec<u8>> {
    (0..RANKS).map(|rank| message(rank, round)).collect()
}

/// Makes a round that must succeed.
fn round(collective: &MpiCollective, round: usize) {
    assert_eq!(block_on(collective.all_gather(message(collective.rank(), round))), Ok(messages(round)));
}

/// Makes a call that must fail, and one more, which fails at once.
fn fails(collective: &MpiCollective, length: usize, expected: &CollectiveFailure) {
    let rank = collective.rank();
    let error = |earlier| Err(Error::Collective { rank, failure: expected.clone(), earlier });
    assert_eq!(block_on(collective.all_gather(vec![0; length])), error(false));
    assert_eq!(block_on(collective.all_gather(vec![0; length])), error(true));
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn rounds(world: &SimpleCommunicator) {
    let first = collective(world);
    let second = collective(world);
    assert_eq!((first.rank(), first.world_size()), (world.rank() as usize, RANKS));
    for number in 0..400 {
        round(&first, number);
        if number % 3 == 0 {
            round(&second, number + 1);
        }
    }
    // Ranks drop theirs at different times, in one order.
    thread::sleep(Duration::from_millis(50 * world.rank() as u64));
}

/// Calls of one rank at the same time, in one order on all ranks, whichever is polled more often.
fn overlapping_calls(world: &SimpleCommunicator) {
    let shared = collective(world);
    for number in 0..50 {
        let mut calls: Vec<_> =
            (0..3).map(|call| Box::pin(shared.all_gather(message(shared.rank(), number + call)))).collect();
        let mut results = [None, None, None];
        block_on(poll_fn(|cx| {
            for call in if number % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] } {
                if results[call].is_none()
                    && let Poll::Ready(result) = calls[call].as_mut().poll(cx)
                {
                    results[call] = Some(result);
                }
            }
            if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        }));
        for (call, result) in results.into_iter().enumerate() {
            assert_eq!(result, Some(Ok(messages(number + call))));
        }
    }
}

/// A rank is silent between forward and backward: the others have an error of the layer, whose statistics are those of forward.
fn layer_without(rank: i32, world: &SimpleCommunicator, silence: impl FnOnce()) {
    let context = wgnorm::Context::headless_blocking().unwrap();
    let run = async {
        let layer = wgnorm::BatchNorm::new(&context, 3, wgnorm::BatchNormOptions::pytorch()).await.unwrap();
        let x = context.upload(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).await.unwrap();
        // Once without a deadline, because compiling kernels takes long.
        {
            let patient = collective(world);
            let options = wgnorm::BatchNormOptions::pytorch();
            let layer = wgnorm::BatchNorm::new(&context, 3, options).await.unwrap();
            let mut layer = layer.synchronised(&patient);
            let (y, saved) = layer.train_forward(&x).await.unwrap();
            layer.backward(&x, &y, &saved).await.unwrap();
        }
        let collective = MpiCollective::new(world, SHORT).unwrap();
        let mut layer = layer.synchronised(&collective);
        let (y, saved) = layer.train_forward(&x).await.unwrap();
        let before = layer.local().running().download(&context).await.unwrap();
        if world.rank() == rank {
            silence();
            thread::sleep(LONG);
        }
        let error = layer.backward(&x, &y, &saved).await.unwrap_err();
        assert!(
            matches!(&error, Error::Collective { failure: CollectiveFailure::Deadline { .. }, .. }),
            "{error}"
        );
        // Nor does a forward pass go through, and what it would have changed is as it was.
        layer.train_forward(&x).await.unwrap_err();
        let running = layer.local().running().download(&context).await.unwrap();
        assert_eq!((running.batches, &running), (1, &before));
    };
    context.block_on(run);
}

fn layer_with_a_silent_rank(world: &SimpleCommunicator) {
    layer_without(2, world, || {});
}

/// All of its threads stand still, those of MPI too.
fn layer_with_a_stopped_rank(world: &SimpleCommunicator) {
    layer_without(2, world, || signal("STOP"));
}

fn layer_with_a_killed_rank(world: &SimpleCommunicator) {
    layer_without(2, world, || signal("KILL"));
}

/// Sends a signal to this process.
fn signal(name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &std::process::id().to_string()]).status();
    assert!(sent.unwrap().success());
}

fn mismatch(world: &SimpleCommunicator) {
    let collective = collective(world);
    round(&collective, 5);
    let expected = CollectiveFailure::Lengths { rank: 0, length: 8, other_rank: 1, other_length: 12 };
    fails(&collective, if collective.rank() == 1 { 12 } else { 8 }, &expected);
}

fn fail(world: &SimpleCommunicator) {
    let collective = collective(world);
    let expected = CollectiveFailure::Failed { rank: 3, reason: "out of memory for y".to_owned() };
    (0..5).for_each(|number| round(&collective, number));
    if collective.rank() == 3 {
        collective.fail("out of memory for y");
        let result = block_on(collective.all_gather(vec![1; 40]));
        assert_eq!(result, Err(Error::Collective { rank: 3, failure: expected, earlier: true }));
    } else {
        fails(&collective, 40, &expected);
    }
}

/// A rank fails in the middle of a call of its own: the others have that call's messages, and the error in the next.
fn fail_while_waiting(world: &SimpleCommunicator) {
    let collective = collective(world);
    let failure = CollectiveFailure::Failed { rank: 0, reason: "interrupted".to_owned() };
    if collective.rank() == 0 {
        let mut call = pin!(collective.all_gather(message(0, 49)));
        assert!(poll_once(call.as_mut()).is_pending());
        collective.fail("interrupted");
        world.barrier();
        assert_eq!(block_on(call), Err(Error::Collective { rank: 0, failure, earlier: false }));
    } else {
        world.barrier();
        round(&collective, 49);
        fails(&collective, 40, &failure);
    }
}

fn too_long(world: &SimpleCommunicator) {
    let collective = collective(world);
    let length = i32::MAX as usize + 1;
    let reason = format!("a message of {length} bytes; MPI takes {} at most", i32::MAX);
    let expected = CollectiveFailure::Failed { rank: 2, reason };
    fails(&collective, if collective.rank() == 2 { length } else { 8 }, &expected);
}

fn leave(world: &SimpleCommunicator) {
    let collective = collective(world);
    (0..5).for_each(|number| round(&collective, number));
    if collective.rank() != 1 {
        fails(&collective, 40, &CollectiveFailure::Left { rank: 1 });
    }
}

fn panic(world: &SimpleCommunicator) {
    let collective = collective(world);
    round(&collective, 1);
    if collective.rank() == 2 {
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _collective = collective;
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
    } else {
        fails(&collective, 40, &CollectiveFailure::Failed { rank: 2, reason: "it panicked".to_owned() });
    }
}

/// The call that a rank drops still gives the others its message; the next tells them.
fn cancel(world: &SimpleCommunicator) {
    let collective = collective(world);
    let failure = CollectiveFailure::Cancelled { rank: 0 };
    if collective.rank() == 0 {
        // Never polled: no call.
        drop(collective.all_gather(vec![1, 2, 3]));
        {
            let mut dropped = pin!(collective.all_gather(message(0, 49)));
            assert!(poll_once(dropped.as_mut()).is_pending());
        }
        world.barrier();
        let result = block_on(collective.all_gather(vec![1; 40]));
        assert_eq!(result, Err(Error::Collective { rank: 0, failure, earlier: true }));
    } else {
        world.barrier();
        round(&collective, 49);
        fails(&collective, 40, &failure);
    }
}

fn own_messages_do_not_mix_in(world: &SimpleCommunicator) {
    let collective = collective(world);
    let mut call = pin!(collective.all_gather(message(collective.rank(), 49)));
    let early = poll_once(call.as_mut());
    let mut ranks = vec![0; RANKS];
    world.all_gather_into(&world.rank(), &mut ranks[..]);
    assert_eq!(ranks, [0, 1, 2, 3]);
    let result = match early {
        Poll::Ready(result) => result,
        Poll::Pending => block_on(call),
    };
    assert_eq!(result, Ok(messages(49)));
}

fn refused(error: Error, part: &str) {
    assert!(
        matches!(&error, Error::CollectiveSetup { failure: CollectiveFailure::Refused { .. } }),
        "{error}"
    );
    assert!(error.to_string().contains(part), "{error}");
}

fn one_thread(world: &SimpleCommunicator) {
    refused(MpiCollective::new(world, LONG).unwrap_err(), "Threading::Funneled");
}

fn wrong_thread(_: &SimpleCommunicator) {
    let other = thread::spawn(|| MpiCollective::new(&SimpleCommunicator::world(), LONG).unwrap_err());
    refused(other.join().unwrap(), "main thread");
}

fn stall(world: &SimpleCommunicator) {
    let collective = MpiCollective::new(world, SHORT).unwrap();
    round(&collective, 5);
    if collective.rank() == 2 {
        loop {
            thread::park();
        }
    }
    fails(&collective, 40, &CollectiveFailure::Deadline { deadline: SHORT, missing: None });
}

/// A rank does not even join.
fn stall_before(world: &SimpleCommunicator) {
    if world.rank() == 2 {
        loop {
            thread::park();
        }
    }
    let failure = CollectiveFailure::Deadline { deadline: SHORT, missing: None };
    let error = MpiCollective::new(world, SHORT).unwrap_err();
    assert_eq!(error, Error::CollectiveSetup { failure });
}
