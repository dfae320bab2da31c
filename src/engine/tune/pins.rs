//! What has been measured: one plan per problem, for all contexts of a device.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::{Autotuning, Problem};
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::plan::{Tuning, tuning_text};

/// A plan that a problem keeps, from [`Context::pinned_tunings`]; as text, one line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PinnedTuning {
    /// Operation, element type, layout, samples x channels x positions, and what else tells problems apart.
    pub problem: String,
    /// What is forced; nothing where the policy's own plan is kept.
    pub tuning: Tuning,
    /// Where it comes from.
    pub source: TuningSource,
}

impl fmt::Display for PinnedTuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = Pin { tuning: self.tuning, source: self.source.clone() };
        write!(f, "{}: {pin}", self.problem)
    }
}

/// Where a pinned plan comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TuningSource {
    /// It was measured by this context, or another of its device.
    Measured {
        /// Median time of the operation with this plan, in nanoseconds.
        ns: f64,
        /// That with the policy's plan.
        policy_ns: f64,
        /// Plans that were measured, the policy's among them.
        plans: usize,
    },
    /// It was read from a file or a text.
    Loaded {
        /// What is said of it there: how it was measured.
        remark: String,
    },
    /// It could not be measured, and is the policy's; not written to files.
    Unmeasured {
        /// Why not.
        reason: String,
    },
}

/// A pinned plan without its problem.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pin {
    pub tuning: Tuning,
    pub source: TuningSource,
}

impl Pin {
    /// The policy's plan.
    fn unmeasured(reason: String) -> Self {
        Self { tuning: Tuning::default(), source: TuningSource::Unmeasured { reason } }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: &f64| ns / 1e6;
        let is_policy = self.tuning == Tuning::default();
        let what = if is_policy { "the policy's plan".to_owned() } else { tuning_text(&self.tuning) };
        match &self.source {
            TuningSource::Measured { ns, plans, .. } if is_policy => {
                write!(f, "{what}, {:.3} ms, kept among {plans} that were measured", ms(ns))
            }
            TuningSource::Measured { ns, policy_ns, plans } => {
                write!(
                    f,
                    "{what}, {:.3} ms, fastest of {plans}; the policy's {:.3} ms",
                    ms(ns),
                    ms(policy_ns)
                )
            }
            TuningSource::Loaded { .. } => write!(f, "{what}, pinned by a file"),
            TuningSource::Unmeasured { reason } => write!(f, "{what}, not measured: {reason}"),
        }
    }
}

/// The pinned plans of a device, by the text of their problem.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    pins: Mutex<BTreeMap<String, Pin>>,
}

impl Pins {
    /// The plan of a problem.
    pub fn get(&self, problem: &str) -> Option<Pin> {
        self.locked(|pins| pins.get(problem).cloned())
    }

    /// Pins a plan unless the problem has one, and returns the one it has. Of two threads that measure at once, the first wins.
    pub fn insert(&self, problem: String, pin: Pin) -> Pin {
        self.locked(|pins| pins.entry(problem).or_insert(pin).clone())
    }

    /// Pins a plan and tells whether the problem had none.
    pub fn add(&self, problem: String, pin: Pin) -> bool {
        self.locked(|pins| match pins.entry(problem) {
            Entry::Vacant(entry) => {
                entry.insert(pin);
                true
            }
            Entry::Occupied(_) => false,
        })
    }

    /// All of them, sorted by problem.
    pub fn all(&self) -> Vec<PinnedTuning> {
        let public = |(problem, pin): (&String, &Pin)| {
            let Pin { tuning, source } = pin.clone();
            PinnedTuning { problem: problem.clone(), tuning, source }
        };
        self.locked(|pins| pins.iter().map(public).collect())
    }

    fn locked<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Pin>) -> T) -> T {
        act(&mut self.pins.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How an operation is planned: by a context whose tuning forces what was chosen.
pub(crate) struct Chosen {
    pub context: Context,
    /// Where the plan comes from, if not simply from the policy.
    pub reason: Option<String>,
}

impl Chosen {
    /// A plan that is tried.
    pub fn candidate(context: &Context, tuning: Tuning) -> Self {
        Self { context: context.with_tuning(tuning), reason: None }
    }

    /// The policy's plan.
    pub fn by_policy(context: &Context, reason: Option<&str>) -> Self {
        Self { context: context.clone(), reason: reason.map(str::to_owned) }
    }

    fn pinned(context: &Context, problem: &Problem, pin: &Pin) -> Self {
        if !problem.allows(context.capabilities(), &pin.tuning) {
            let reason =
                "tuning: the policy's plan, because the pinned one is not possible with the device's limits";
            return Self::by_policy(context, Some(reason));
        }
        Self { context: context.with_tuning(pin.tuning), reason: Some(format!("tuning: {pin}")) }
    }
}

/// How every problem is planned where nothing is pinned, which is known before there is a problem. What is forced goes before what is measured.
pub(crate) fn settled_for(context: &Context) -> Option<Chosen> {
    let settled = context.autotuning() == Autotuning::Off || *context.tuning() != Tuning::default();
    settled.then(|| Chosen::by_policy(context, None))
}

/// The plan of a problem that is not [settled](settled_for), unless it has to be measured first.
pub(crate) fn look_up(context: &Context, problem: &Problem) -> Option<Chosen> {
    let mode = context.autotuning();
    match context.pins().get(&problem.to_string()) {
        Some(pin) => Some(Chosen::pinned(context, problem, &pin)),
        None if mode == Autotuning::Pinned => {
            Some(Chosen::by_policy(context, Some("tuning: the policy's plan, because none is pinned")))
        }
        // Scratch tensors of that size are more than a measurement may cost.
        None if problem.is_windowed(context.capabilities()) => {
            let reason = "the tensors take several dispatches per pass".to_owned();
            Some(keep(context, problem, Pin::unmeasured(reason)))
        }
        None => None,
    }
}

/// Pins what was measured. An error of the measurement is none of the operation's, which may well have memory enough: the policy's
/// plan is pinned then.
pub(crate) fn pin(context: &Context, problem: &Problem, measured: Result<Pin>) -> Chosen {
    keep(context, problem, settled(measured))
}

fn settled(measured: Result<Pin>) -> Pin {
    measured.unwrap_or_else(|error| Pin::unmeasured(error.to_string()))
}

fn keep(context: &Context, problem: &Problem, pin: Pin) -> Chosen {
    Chosen::pinned(context, problem, &context.pins().insert(problem.to_string(), pin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;

    #[test]
    fn the_first_pin_stays() {
        let pins = Pins::default();
        let pin = |splits| Pin {
            tuning: Tuning { splits: Some(splits), ..Tuning::default() },
            source: TuningSource::Loaded { remark: String::new() },
        };
        assert_eq!(pins.get("a"), None);
        assert_eq!(pins.insert("a".to_owned(), pin(1)), pin(1));
        assert_eq!(pins.insert("a".to_owned(), pin(2)), pin(1));
        assert_eq!(pins.get("a"), Some(pin(1)));
        assert_eq!(pins.all().len(), 1);
    }

    #[test]
    fn what_fails_to_be_measured_is_the_policys_and_says_why() {
        let pin = settled(Err(Error::OutOfMemory { what: "a twin".to_owned() }));
        assert_eq!(pin.tuning, Tuning::default());
        assert_eq!(pin.to_string(), "the policy's plan, not measured: out of memory for a twin");
    }

    #[test]
    fn a_pin_says_what_won_and_by_how_much() {
        let source = TuningSource::Measured { ns: 1e6, policy_ns: 2e6, plans: 9 };
        let pin = Pin { tuning: Tuning { splits: Some(4), ..Tuning::default() }, source };
        assert_eq!(pin.to_string(), "splits 4, 1.000 ms, fastest of 9; the policy's 2.000 ms");
        let pin = Pin { tuning: Tuning::default(), ..pin };
        assert_eq!(pin.to_string(), "the policy's plan, 1.000 ms, kept among 9 that were measured");
    }
}
