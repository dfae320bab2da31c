//! Where experiments are run: a device, the digits, what is kept.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wgnorm_burn::wgnorm::wgpu;

use crate::Result;
use crate::digits::Digits;
use crate::outcome::{Experiment, Outcome};

/// Of the digits, those that no network trains on.
pub const HELD_OUT: usize = 1000;

pub struct Lab {
    pub device: Device,
    pub digits: Digits,
    pub quick: bool,
    /// Of what machine figures are.
    machine: String,
    /// Runs that are finished.
    kept: PathBuf,
    docs: PathBuf,
}

/// An outcome, and where it was come to.
#[derive(Serialize, Deserialize)]
struct Told {
    #[serde(flatten)]
    outcome: Outcome,
    machine: String,
}

/// The lab, for one experiment.
pub struct Bench<'l> {
    pub lab: &'l Lab,
    name: &'static str,
}

impl Lab {
    /// Digits, and by default what is kept, lie in `target/proof` of the repository.
    pub fn open(quick: bool, keep: Option<&Path>) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = root.join("target/proof");
        let digits = Digits::fetch(&target.join("digits"))?;
        let device = wgnorm_burn::init(Device::wgpu_options())?.autodiff();
        wgnorm_burn::fallback::set_strict(true);
        let kept = keep.unwrap_or(&target).join(if quick { "quick" } else { "runs" });
        // What is quick is for the eye.
        let docs = if quick { kept.join("docs") } else { root.join("docs") };
        fs::create_dir_all(docs.join("proof"))?;
        Ok(Self { device, digits, quick, machine: machine()?, kept, docs })
    }

    pub fn of(&self, name: &'static str) -> Bench<'_> {
        Bench { lab: self, name }
    }

    /// Keeps what an experiment says.
    pub fn keep(&self, experiment: &Experiment, outcome: &Outcome) -> Result<()> {
        let told = Told { outcome: outcome.clone(), machine: self.machine.clone() };
        let json = serde_json::to_string_pretty(&told)? + "\n";
        Ok(fs::write(self.docs.join(format!("proof/{}.json", experiment.name)), json)?)
    }

    /// The table, of all experiments that have said something.
    pub fn write_table(&self, experiments: &[Experiment]) -> Result<()> {
        let mut page = include_str!("head.md").to_owned();
        let mut machines = BTreeSet::new();
        for Experiment { name, claim, source, .. } in experiments {
            let Ok(json) = fs::read_to_string(self.docs.join(format!("proof/{name}.json"))) else { continue };
            let told: Told =
                serde_json::from_str(&json).map_err(|error| format!("proof/{name}.json: {error}"))?;
            let Outcome { ran, found, verdict, why } = told.outcome;
            machines.insert(told.machine);
            page += &format!(
                "| `{name}` | {claim} ({source}) | {ran} | {found} | **{}**: {why} |\n",
                verdict.words()
            );
        }
        let machines: Vec<String> = machines.into_iter().collect();
        page += &format!("\nRun on {}.\n", machines.join("; "));
        for Experiment { name, claim, .. } in experiments {
            if self.docs.join(format!("proof/{name}.svg")).is_file() {
                page += &format!(
                    "\n## {name}\n\n![{claim}](proof/{name}.svg)\n\nNumbers: [{name}.csv](proof/{name}.csv)\n"
                );
            }
        }
        let path = self.docs.join("PROOF.md");
        fs::write(&path, page)?;
        println!("{}", path.display());
        Ok(())
    }
}

/// The adapter, its driver, and how many cores there are.
fn machine() -> Result<String> {
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let wgpu::AdapterInfo { name, driver, driver_info, .. } = adapter.get_info();
    let cores = std::thread::available_parallelism()?;
    Ok(format!("{name}, {driver} {driver_info}, {cores} cores"))
}

impl Bench<'_> {
    /// The result of a run: kept, if it was of the same plan, or run now.
    pub fn once<P: Debug, T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        plan: P,
        run: impl FnOnce(P) -> Result<T>,
    ) -> Result<T> {
        let path = self.folder().join(format!("{name}.json"));
        let of = format!("{plan:?}");
        let kept =
            fs::read_to_string(&path).ok().and_then(|json| serde_json::from_str::<(String, T)>(&json).ok());
        if let Some((_, result)) = kept.filter(|(kept_of, _)| *kept_of == of) {
            return Ok(result);
        }
        let json = serde_json::to_string(&(of, run(plan)?))?;
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, &json)?;
        // As it is read when it is kept, which may differ in a last digit.
        Ok(serde_json::from_str::<(String, T)>(&json)?.1)
    }

    /// The results of a run of each seed.
    pub fn of_seeds<P: Debug, T: Serialize + DeserializeOwned>(
        &self,
        bar: &ProgressBar,
        name: &str,
        plan: impl Fn(u64) -> P,
        run: impl Fn(P) -> Result<T>,
    ) -> Result<Vec<T>> {
        let of_seed = |seed| {
            bar.set_message(format!("{name}, seed {seed}"));
            let result = self.once(&format!("{name}-{seed}"), plan(seed), &run);
            bar.inc(1);
            result
        };
        self.seeds().map(of_seed).collect()
    }

    /// Where its runs are kept.
    pub fn folder(&self) -> PathBuf {
        self.lab.kept.join(self.name)
    }

    /// Where a file of the experiment goes.
    pub fn file(&self, extension: &str) -> PathBuf {
        self.lab.docs.join(format!("proof/{}.{extension}", self.name))
    }

    /// Rows of figures.
    pub fn csv(&self, head: &str, rows: &[String]) -> Result<()> {
        Ok(fs::write(self.file("csv"), format!("{head}\n{}\n", rows.join("\n")))?)
    }

    /// Seeds of what is repeated.
    pub fn seeds(&self) -> std::ops::Range<u64> {
        if self.lab.quick { 0..1 } else { 0..3 }
    }

    /// A number of steps, or a few.
    pub fn steps(&self, steps: usize) -> usize {
        if self.lab.quick { steps / 10 } else { steps }
    }

    /// Values, or the first and the last of them.
    pub fn some<T: Copy>(&self, values: &[T]) -> Vec<T> {
        match self.lab.quick {
            true => values
                .iter()
                .enumerate()
                .filter(|(i, _)| *i == 0 || *i == values.len() - 1)
                .map(|(_, v)| *v)
                .collect(),
            false => values.to_vec(),
        }
    }

    pub fn progress(&self, runs: usize) -> ProgressBar {
        let bar = ProgressBar::new(runs as u64);
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}");
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}
