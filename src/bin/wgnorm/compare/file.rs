//! Reading what `bench --json` wrote, of this version or an older one.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::Refusal;
use crate::report::Adapter;

#[derive(Deserialize)]
pub struct File {
    pub adapter: Adapter,
    pub git: Option<String>,
    pub date: String,
    pub cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
pub struct Case {
    pub name: String,
    pub op: String,
    pub layout: String,
    pub dtype: String,
    #[serde(default = "none")]
    activation: String,
    #[serde(default)]
    residual: bool,
    #[serde(default)]
    in_place: bool,
    #[serde(default = "warm")]
    pub cache: String,
    pub multiplicity: u32,
    pub floor_bytes: f64,
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
pub type Key = (String, String, String, String, [bool; 2], String, usize);

/// Which clock two files can be compared by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    Device,
    Wall,
}

fn none() -> String {
    "none".to_owned()
}

fn warm() -> String {
    "warm".to_owned()
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
            key.6 = *count;
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

impl Case {
    /// Element type, and what is fused or in place, if anything is.
    pub fn variant(&self) -> String {
        let activation = (self.activation != "none").then_some(self.activation.as_str());
        let residual = self.residual.then_some("residual");
        let in_place = self.in_place.then_some("in place");
        let parts = [Some(self.dtype.as_str()), residual, activation, in_place];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
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
    let Case { name, layout, dtype, activation, residual, in_place, cache, .. } = case.clone();
    (name, layout, dtype, activation, [residual, in_place], cache, 0)
}
