//! Reading what `bench --json` wrote, of this version or an older one, or what a benchmark of a peer wrote in its
//! format.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::bench::norm;
use crate::report::Adapter;

#[derive(Deserialize)]
pub struct File {
    pub adapter: Adapter,
    pub git: Option<String>,
    pub date: String,
    /// What was measured, if not this crate.
    pub peer: Option<Peer>,
    pub cases: Vec<Case>,
    /// Whether all cases are there that were to be; an older file has none but those.
    #[serde(default = "yes")]
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    pub version: String,
    /// Which of its kernels, and on what.
    pub variant: String,
}

#[derive(Clone, Deserialize)]
pub struct Case {
    pub name: String,
    pub op: String,
    #[serde(default = "batch")]
    norm: String,
    groups: Option<usize>,
    axes: Option<String>,
    segments: Option<usize>,
    #[serde(default)]
    pub shape: Vec<usize>,
    pub layout: String,
    pub dtype: String,
    #[serde(default = "none")]
    activation: String,
    #[serde(default)]
    residual: bool,
    #[serde(default)]
    sum: bool,
    /// Where a gate acts, if there is one.
    #[serde(default)]
    gate: Option<String>,
    #[serde(default)]
    int8: bool,
    #[serde(default)]
    in_place: bool,
    #[serde(default = "warm")]
    pub cache: String,
    pub multiplicity: u32,
    pub floor_bytes: f64,
    #[serde(default = "yes")]
    pub checked: bool,
    // What failed has no times.
    device_ns: Option<Spread>,
    wall_ns: Option<Spread>,
    pub copy_gbps: Option<f64>,
    pub plan_fraction: Option<f64>,
}

#[derive(Clone, Copy, Deserialize)]
struct Spread {
    median: f64,
}

/// What makes two cases the same; the number tells repetitions apart.
pub type Key = ([String; 6], [bool; 3], usize);

/// Which clock two files can be compared by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Device,
    Wall,
}

fn batch() -> String {
    "batch".to_owned()
}

fn none() -> String {
    "none".to_owned()
}

fn warm() -> String {
    "warm".to_owned()
}

fn yes() -> bool {
    true
}

impl File {
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let told = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
        let text = std::fs::read(path).map_err(|error| told(&error))?;
        Ok(serde_json::from_slice(&text).map_err(|error| told(&error))?)
    }

    /// The cases in order, each with its key.
    pub fn keyed(&self) -> Vec<(Key, &Case)> {
        let mut seen: HashMap<Key, usize> = HashMap::new();
        let keyed = |case| {
            let mut key = key(case);
            let count = seen.entry(key.clone()).or_default();
            key.2 = *count;
            *count += 1;
            (key, case)
        };
        self.cases.iter().map(keyed).collect()
    }

    /// Whether every timed case has the device's time.
    pub fn has_device_times(&self) -> bool {
        self.cases.iter().all(|case| case.wall_ns.is_none() || case.device_ns.is_some())
    }
}

impl Clock {
    /// The device's, if all files have its times.
    pub fn of<'f>(mut files: impl Iterator<Item = &'f File>) -> Self {
        if files.all(File::has_device_times) { Self::Device } else { Self::Wall }
    }
}

impl Case {
    /// The norm, with its groups or axes if it has any.
    pub fn norm(&self) -> String {
        norm::label(&self.norm, self.groups, self.axes.as_deref(), self.segments)
    }

    /// Element type, and what is fused or in place, if anything is.
    pub fn variant(&self) -> String {
        let sum = self.sum.then_some("sum");
        let activation = (self.activation != "none").then_some(self.activation.as_str());
        let gate = self.gate.as_ref().map(|gate| format!("gate {gate}"));
        let residual = self.residual.then_some("residual");
        let in_place = self.in_place.then_some("in place");
        let int8 = self.int8.then_some("int8");
        let parts = [Some(self.dtype.as_str()), sum, gate.as_deref(), residual, activation, in_place, int8];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whether nothing is fused or in place, and the cache is warm: what peers are measured in.
    pub fn is_plain(&self) -> bool {
        let fused =
            self.activation != "none" || self.residual || self.sum || self.gate.is_some() || self.int8;
        !fused && !self.in_place && self.cache == "warm"
    }

    /// Median time, if there is one that can be divided by.
    pub fn ns(&self, clock: Clock) -> Option<f64> {
        let spread = match clock {
            Clock::Device => self.device_ns,
            Clock::Wall => self.wall_ns,
        };
        spread.map(|ns| ns.median).filter(|ns| ns.is_finite() && *ns > 0.0)
    }

    /// How long a copy takes for the floor bytes.
    pub fn copy_ns(&self) -> Option<f64> {
        self.copy_gbps.map(|gbps| self.floor_bytes / gbps).filter(|ns| ns.is_finite() && *ns > 0.0)
    }
}

fn key(case: &Case) -> Key {
    let Case { name, layout, dtype, activation, residual, sum, gate, int8, in_place, cache, .. } =
        case.clone();
    let activation = activation + gate.as_deref().unwrap_or_default() + if int8 { "int8" } else { "" };
    ([name, case.norm(), layout, dtype, activation, cache], [residual, sum, in_place], 0)
}
