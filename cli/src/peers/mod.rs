//! `wgnorm peers`: this crate beside others that were timed over the same cases.
//!
//! Peers are measured by programs of their own (`benches/peers/`), one after the other on one machine, each with a copy
//! beside every case. Their files have the format of `bench --json`, and say whose they are.

mod sides;
mod table;

use std::path::PathBuf;

use serde::Serialize;

use crate::report::{Adapter, write_json};
use crate::results::{Clock, File, Peer};
use crate::{Outcome, Refusal};
use sides::{Group, Side};

#[derive(clap::Args)]
pub struct Args {
    /// JSON that `bench` wrote
    ours: PathBuf,
    /// JSON that the benchmark of a peer wrote
    #[arg(required = true)]
    peers: Vec<PathBuf>,
    /// Takes peers that ran on another adapter too. Such a table says little of the kernels
    #[arg(long)]
    other_adapters: bool,
    /// Writes the tables as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the tables as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Everything that is shown.
#[derive(Serialize)]
pub struct Report<'f> {
    /// Whose times these are: "device" or "wall".
    clock: &'static str,
    wgnorm: Source<'f>,
    peers: Vec<Source<'f>>,
    groups: Vec<Group>,
    /// What has no place in the tables.
    notes: Vec<String>,
}

/// Where the times of a column come from.
#[derive(Serialize)]
struct Source<'f> {
    /// Heads its column.
    label: String,
    adapter: &'f Adapter,
    git: Option<&'f str>,
    date: &'f str,
    peer: Option<&'f Peer>,
    /// Whether it ran on the adapter of this crate's file.
    same_adapter: bool,
    /// How many times as many bytes per second its copies moved as those beside this crate's cases.
    copy_speed: Option<f64>,
}

pub fn run(args: &Args) -> Result<Outcome, Refusal> {
    let ours = File::read(&args.ours)?;
    if let Some(peer) = &ours.peer {
        let (path, name) = (args.ours.display(), &peer.name);
        return Err(format!("{path} is of {name}; the first file must be this program's").into());
    }
    let files = args.peers.iter().map(|path| File::read(path)).collect::<Result<Vec<_>, _>>()?;
    for (path, file) in args.peers.iter().zip(&files) {
        if !args.other_adapters && !same_machine(&ours.adapter, &file.adapter) {
            return Err(format!(
                "{} ran on {}, {} on {}; --other-adapters compares them all the same",
                args.ours.display(),
                ours.adapter,
                path.display(),
                file.adapter
            )
            .into());
        }
    }
    let report = report(&ours, &files);
    for (path, missing) in args.peers.iter().zip(missing(&report)) {
        if missing {
            let (ours, peer) = (args.ours.display(), path.display());
            return Err(format!(
                "{ours} and {peer} have no plain, timed case in common (the same batch and shapes?)"
            )
            .into());
        }
    }
    print!("{}", table::text(&report));
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &args.markdown {
        let written = std::fs::write(path, table::markdown(&report));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(Outcome::Passed)
}

fn report<'f>(ours: &'f File, files: &'f [File]) -> Report<'f> {
    let clock = Clock::of(std::iter::once(ours).chain(files));
    let (our_side, sides) = (Side::of(ours), files.iter().map(Side::of).collect::<Vec<_>>());
    let source = |label, file: &'f File, copy_speed| Source {
        label,
        adapter: &file.adapter,
        git: file.git.as_deref(),
        date: &file.date,
        peer: file.peer.as_ref(),
        same_adapter: same_machine(&ours.adapter, &file.adapter),
        copy_speed,
    };
    let peers = files.iter().zip(&sides).zip(labels(files));
    Report {
        clock: match clock {
            Clock::Device => "device",
            Clock::Wall => "wall",
        },
        wgnorm: source("wgnorm".to_owned(), ours, None),
        peers: peers.map(|((file, side), label)| source(label, file, side.copy_speed(&our_side))).collect(),
        groups: sides::groups(&our_side, &sides, clock),
        notes: notes(&our_side, &sides, &labels(files)),
    }
}

/// Whether two adapters are the same part of a machine, as far as their names tell. A CPU has one name as a software
/// adapter and another as itself.
fn same_machine(one: &Adapter, other: &Adapter) -> bool {
    let both_cpus = [one, other].iter().all(|adapter| adapter.device_type == "Cpu");
    both_cpus || one.name.trim().eq_ignore_ascii_case(other.name.trim())
}

/// What a file is called: the peer's name, with its variant where that alone is no name.
fn labels(files: &[File]) -> Vec<String> {
    let name = |file: &File| file.peer.as_ref().map_or("wgnorm", |peer| &peer.name).to_owned();
    let label = |file: &File| {
        let alone = files.iter().filter(|other| name(other) == name(file)).count() == 1;
        match &file.peer {
            Some(peer) if !alone => format!("{} ({})", peer.name, peer.variant),
            Some(peer) => peer.name.clone(),
            None => format!("wgnorm {}", file.git.as_deref().unwrap_or("(other)")),
        }
    };
    files.iter().map(label).collect()
}

/// Which peers are in no table.
fn missing(report: &Report<'_>) -> Vec<bool> {
    let in_none = |peer: usize| report.groups.iter().all(|group| group.total.peers[peer].cases == 0);
    (0..report.peers.len()).map(in_none).collect()
}

fn notes(ours: &Side<'_>, sides: &[Side<'_>], labels: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |label: &str, side: &Side<'_>| {
        if side.left_out > 0 {
            notes.push(format!(
                "{label}: {} cases that are fused, of a sum, in place or cold are left out",
                side.left_out
            ));
        }
    };
    note("wgnorm", ours);
    sides.iter().zip(labels).for_each(|(side, label)| note(label, side));
    for (side, label) in sides.iter().zip(labels) {
        let only = side.only_here(ours);
        if !only.is_empty() {
            notes.push(format!("{label}: not among wgnorm's cases: {}", only.join(", ")));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, device_type: &str) -> Adapter {
        Adapter {
            name: name.to_owned(),
            backend: String::new(),
            driver: String::new(),
            device_type: device_type.to_owned(),
        }
    }

    #[test]
    fn adapters_are_told_apart_by_name_but_a_cpu_is_a_cpu() {
        let gpu = adapter("GPU 1", "DiscreteGpu");
        assert!(same_machine(&gpu, &adapter("gpu 1 ", "IntegratedGpu")));
        assert!(!same_machine(&gpu, &adapter("GPU 2", "DiscreteGpu")));
        assert!(!same_machine(&gpu, &adapter("CPU", "Cpu")));
        assert!(same_machine(&adapter("llvmpipe", "Cpu"), &adapter("CPU", "Cpu")));
    }

    #[test]
    fn peers_of_one_name_are_told_apart() {
        let file = |name: Option<&str>, variant: &str| {
            let peer =
                name.map(|name| serde_json::json!({ "name": name, "version": "1", "variant": variant }));
            let adapter = serde_json::json!({ "name": "", "backend": "", "driver": "", "device_type": "" });
            let file = serde_json::json!({ "adapter": adapter, "date": "", "peer": peer, "cases": [] });
            serde_json::from_value::<File>(file).unwrap()
        };
        let files = [file(Some("a"), "x"), file(Some("b"), "x"), file(Some("b"), "y"), file(None, "")];
        assert_eq!(labels(&files), ["a", "b (x)", "b (y)", "wgnorm (other)"]);
    }
}
