//! Batch norm over ranks, on threads and in processes: the same training as on one device, and what the exchange adds to a step.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::figure::{Bar, Bars};
use crate::lab::Bench;
use crate::network::{Body, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::ranks::{Of, Run, another_device, train};
use crate::training::{Plan, percent, spread};

const STEPS: usize = 40;
const BATCH: usize = 64;
const WORLDS: [usize; 2] = [2, 4];
/// Trainings of each kind, in turns; times are of the quickest.
pub const ROUNDS: usize = 2;

/// Of a seed, each round with the statistics of each rank and with those of all.
pub type Rounds = Vec<[Run; 2]>;

/// Steps in which losses are compared; later what is rounded otherwise has grown.
const COMPARED: usize = 10;

/// How far losses of about 2 may be apart that are rounded otherwise.
const SAME: f64 = 1e-4;

/// Where ranks are.
#[derive(Clone, Copy, Debug)]
enum Place {
    Threads,
    #[cfg(feature = "mpi")]
    Processes,
}

#[cfg(not(feature = "mpi"))]
const PLACES: [(&str, Place); 1] = [("threads", Place::Threads)];
#[cfg(feature = "mpi")]
const PLACES: [(&str, Place); 2] = [("threads", Place::Threads), ("processes, MPI", Place::Processes)];

#[derive(Clone, Serialize, Deserialize)]
struct Found {
    /// Of losses from those on one device at the same step: the largest difference with all ranks' statistics, and with each rank's own.
    differences: [f64; 2],
    /// Of a step, with each rank's own statistics and with all ranks'.
    milliseconds: [f64; 2],
}

pub fn plan(steps: usize, seed: u64) -> Plan {
    Plan { shape: Shape::new(Body::Convolutional, Kind::Batch), rate: 0.1, batch: BATCH, steps, seed }
}

pub fn run(bench: &Bench<'_>) -> Result<Outcome> {
    let steps = bench.steps(STEPS);
    let seeds: Vec<u64> = bench.seeds().collect();
    // Every process compiles for itself.
    let worlds = if bench.lab.quick { &WORLDS[..1] } else { &WORLDS };
    let bar = bench.progress(PLACES.len() * worlds.len());
    let mut devices = vec![bench.lab.device.clone()];
    let (mut rows, mut bars, mut shares, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, (place_name, place)) in PLACES.into_iter().enumerate() {
        for &world in worlds {
            let name = format!("{world} {place_name}");
            bar.set_message(name.clone());
            let of = (place, plan(steps, 0), seeds.clone(), ROUNDS);
            let of_world = bench.once(&name, of, |(place, ..)| {
                while devices.len() < world {
                    devices.push(another_device()?);
                }
                compare(bench, place, (steps, &seeds), &devices[..world])
            })?;
            for (seed, found) in seeds.iter().zip(&of_world) {
                let Found { differences: [all_ranks, own], milliseconds: [apart, together] } = found;
                rows.push(format!("\"{name}\",{seed},{all_ranks},{own},{apart},{together}"));
            }
            bar.inc(1);
            for (which, words) in ["each one's statistics", "all statistics"].into_iter().enumerate() {
                let values = of_world.iter().map(|found| found.milliseconds[which]).collect();
                bars.push(Bar { name: format!("{name}: {words}"), group: at + 1, values });
            }
            let share = |found: &Found| 1.0 - found.milliseconds[0] / found.milliseconds[1];
            shares.push((name, of_world.iter().map(share).collect::<Vec<_>>()));
            all.extend(of_world);
        }
    }
    bar.finish_and_clear();
    bench.csv("ranks,seed,difference_all,difference_own,ms_own,ms_all", &rows)?;
    let caption = format!("A training step of the convolutional network, {BATCH} digits over all ranks");
    Bars { caption, x: "milliseconds", bars }.draw(&bench.file("svg"))?;
    let most = |at: usize| all.iter().map(|found| found.differences[at]).fold(0.0, f64::max);
    let (same, apart) = (most(0), most(1));
    let mean = spread(&shares.iter().flat_map(|(_, share)| share.clone()).collect::<Vec<_>>()).0;
    let found: Vec<String> =
        shares.iter().map(|(name, share)| format!("{} with {name}", percent(share))).collect();
    Ok(Outcome {
        ran: format!(
            "the convolutional network, {BATCH} digits a step over 1, 2 and 4 ranks on the same two cores, gradients averaged through the host, {steps} steps, the quicker of {ROUNDS} trainings in turns"
        ),
        found: format!(
            "losses of the first {COMPARED} steps differ from one device's by {same:.1e} at most with all ranks' statistics, by {apart:.1e} with each rank's own; of a step the exchange takes {}",
            found.join(", ")
        ),
        verdict: Verdict::of(same <= SAME && mean <= 0.15, same <= SAME),
        why: format!(
            "{}. Ranks here share two cores, and every exchange waits for the slowest: {:.0} % of a step in the mean{}",
            if same <= SAME { "it is the large batch, to rounding" } else { "it is not the large batch" },
            100.0 * mean,
            if cfg!(feature = "mpi") { "" } else { ". Built without MPI: processes were not tried" }
        ),
    })
}

/// Of each seed.
fn compare(
    bench: &Bench<'_>,
    place: Place,
    (steps, seeds): (usize, &[u64]),
    devices: &[Device],
) -> Result<Vec<Found>> {
    let lab = bench.lab;
    let rounds: Vec<Rounds> = match place {
        Place::Threads => {
            let round = |seed| {
                let of = |of| train(lab, plan(steps, seed), devices, of);
                Ok([of(Of::Rank)?, of(Of::AllRanks)?])
            };
            seeds.iter().map(|&seed| (0..ROUNDS).map(|_| round(seed)).collect()).collect::<Result<_>>()?
        }
        #[cfg(feature = "mpi")]
        Place::Processes => {
            let job = crate::mpi::Job { steps, seeds: seeds.to_vec() };
            crate::mpi::launch(devices.len(), &job, &bench.folder())?
        }
    };
    let found = |(&seed, rounds): (&u64, &Rounds)| {
        let alone = train(lab, plan(steps, seed), &devices[..1], Of::Rank)?;
        let difference = |which: usize| {
            let of_round = |round: &[Run; 2]| {
                let pairs = round[which].losses.iter().zip(&alone.losses).take(COMPARED);
                pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
            };
            rounds.iter().map(of_round).fold(0.0, f64::max)
        };
        let quickest =
            |which: usize| rounds.iter().map(|round| round[which].milliseconds).fold(f64::INFINITY, f64::min);
        Ok(Found { differences: [difference(1), difference(0)], milliseconds: [quickest(0), quickest(1)] })
    };
    seeds.iter().zip(&rounds).map(found).collect()
}
