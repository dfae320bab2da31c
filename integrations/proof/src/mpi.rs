//! The same in processes: this program runs itself by `mpirun`, and each process is a rank.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use wgnorm_burn::Rank;
use wgnorm_burn::wgnorm::collective::{Collective, MpiCollective};
use wgnorm_burn::wgnorm::mpi;
use wgnorm_burn::wgnorm::mpi::Threading;
use wgnorm_burn::wgnorm::mpi::topology::{Communicator, SimpleCommunicator};

use crate::Result;
use crate::experiments::synchronised::{ROUNDS, Rounds, plan};
use crate::lab::Lab;
use crate::network::Network;
use crate::ranks::{DEADLINE, Of, train_as};

/// What the processes train.
#[derive(Serialize, Deserialize)]
pub struct Job {
    pub steps: usize,
    pub seeds: Vec<u64>,
}

/// Trains on so many processes, each seed.
pub fn launch(world: usize, job: &Job, folder: &Path) -> Result<Vec<Rounds>> {
    fs::create_dir_all(folder)?;
    let path = folder.join("mpi-job");
    fs::write(&path, serde_json::to_string(job)?)?;
    let status = Command::new("mpirun")
        .args(["-n", &world.to_string()])
        .arg(std::env::current_exe()?)
        .arg("--mpi-job")
        .arg(&path)
        // Open MPI 4 and 5: on this machine alone, more ranks than cores, in a container as root.
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_plm", "isolated")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
        .env("PRTE_ALLOW_RUN_AS_ROOT", "1")
        .env("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        .status()
        .map_err(|error| format!("cannot run mpirun ({error}); `cargo xtask setup mpi` installs it"))?;
    if !status.success() {
        return Err(format!("mpirun -n {world} ended with {status}").into());
    }
    Ok(serde_json::from_str(&fs::read_to_string(path.with_extension("out"))?)?)
}

/// A process of it.
pub fn run(path: &Path) -> Result<()> {
    let (universe, _) =
        mpi::initialize_with_threading(Threading::Funneled).ok_or("MPI was initialized before")?;
    let world = universe.world();
    // A panic has told itself.
    let result =
        catch_unwind(AssertUnwindSafe(|| rank(path, &world))).unwrap_or_else(|_| Err("a panic".into()));
    if let Err(error) = &result {
        eprintln!("rank {}: {error}", world.rank());
        // MPI_Finalize may wait for a rank that is silent.
        world.abort(1);
    }
    result
}

fn rank(path: &Path, world: &SimpleCommunicator) -> Result<()> {
    let job: Job = serde_json::from_str(&fs::read_to_string(path)?)?;
    let collective = &MpiCollective::new(world, DEADLINE)?;
    // Nothing is told here; what a quick lab would write lies beside the job.
    let lab = Lab::open(true, path.parent())?;
    let train = |rank: &Rank, seed, of| {
        let plan = plan(job.steps, seed);
        lab.device.seed(100 + plan.seed);
        let network = Network::new(plan.shape, &lab.device);
        train_as(rank, &lab, plan, network, &lab.device, of).map_err(|error| error.to_string())
    };
    let runs = Rank::serve(collective, |rank| {
        let round = |seed| Ok([train(&rank, seed, Of::Rank)?, train(&rank, seed, Of::AllRanks)?]);
        let rounds = |&seed: &u64| (0..ROUNDS).map(|_| round(seed)).collect();
        job.seeds.iter().map(rounds).collect::<std::result::Result<Vec<Rounds>, String>>()
    })?;
    if Collective::rank(collective) == 0 {
        fs::write(path.with_extension("out"), serde_json::to_string(&runs)?)?;
    }
    Ok(())
}
