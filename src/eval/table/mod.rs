//! The cases that must hold on every adapter, one table for `wgnorm check` and the tests: specs, draws and the variants that each is run in.
//!
//! The quick table has what stored fixtures lack (sizes around every boundary, ranges that overflow, empty batches, more workgroups than
//! one dimension holds, slices longer than one invocation may walk) and all pairs of choices; the full one also every combination of a few.

mod axes;
mod batch;
mod curve;
mod custom;
mod gated;
mod int8;
mod pairs;
mod parts;
mod ragged;
mod second;
mod slices;
mod spectral;
mod switchable;

use super::data::{Data, Draw, Gamma};
use super::problem::Problem;
use super::random::seed_of;
use super::run::Plan;
use super::variant::{Variant, Variants};
use crate::base::error::Result;
use crate::base::shape::Layout;
use crate::spec::{Norm, Spec, Statistics};

/// A problem with the variants that it is run in.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its name, which tells it from others.
    pub name: String,
    /// What is run.
    pub spec: Spec,
    /// Of which values.
    pub draw: Draw,
    /// In which layouts.
    pub layouts: Vec<Layout>,
    /// In which plans and places.
    pub variants: Variants,
}

/// The quick table: what must hold on every adapter, in minutes.
pub fn quick() -> Vec<Case> {
    let mut cases = batch::cases();
    cases.extend(pairs::batch());
    cases.extend(slices::cases());
    cases.extend(pairs::slices());
    cases.extend(curve::cases());
    cases.extend(custom::cases());
    cases.extend(gated::cases());
    cases.extend(axes::cases());
    cases.extend(int8::cases());
    cases.extend(parts::cases());
    cases.extend(second::cases());
    cases.extend(spectral::cases());
    cases.extend(ragged::cases());
    cases.extend(switchable::cases());
    cases
}

/// The quick table, every combination of norm, operation, layout, element type, activation, residual and sum, and longer slices.
pub fn full() -> Vec<Case> {
    let mut cases = quick();
    cases.extend(batch::long());
    cases.extend(parts::large());
    cases.extend(second::long());
    cases.extend(pairs::all_of_batch());
    cases.extend(pairs::all_of_slices());
    cases
}

impl Case {
    /// A case in all layouts that its norm has. Its values are those of its name.
    fn new(what: &str, line: &str, data: Data, variants: Variants) -> Self {
        let spec = line.parse().unwrap_or_else(|error| panic!("a line of the table: {error}"));
        Self::of(what, spec, data, variants)
    }

    fn of(what: &str, spec: Spec, data: Data, variants: Variants) -> Self {
        let kind = match (spec.norm.is_batch(), kind(&spec)) {
            (true, kind) => kind,
            (false, _) => spec.norm.name(),
        };
        // At rank 2 both are the same.
        let layouts = match spec.norm.has_channels() && spec.shape.len() > 2 {
            true => layout_all(),
            false => vec![Layout::ChannelsFirst],
        };
        let draw = Draw { data, seed: seed_of(what), ..Draw::default() };
        Self { name: format!("builtin.{kind}.{what}"), spec, draw, layouts, variants }
    }

    /// With another gamma.
    fn with_gamma(self, gamma: Gamma) -> Self {
        Self { draw: Draw { gamma, ..self.draw }, ..self }
    }

    /// In one layout alone.
    fn in_layout(self, layout: Layout) -> Self {
        Self { layouts: vec![layout], ..self }
    }

    /// What is run, for reports.
    pub fn op(&self) -> String {
        match self.spec.norm.is_batch() {
            true => format!("batch_norm_{}", kind(&self.spec)),
            false => self.spec.norm.name().to_owned(),
        }
    }

    /// The problem, with data and expectations.
    ///
    /// # Errors
    /// Those of [`Problem::new`].
    pub fn problem(&self) -> Result<Problem> {
        Problem::new(&self.spec, &self.draw)
    }

    /// Every layout with every variant that applies.
    pub fn runs(&self) -> Vec<(Layout, Variant)> {
        self.variants.runs(&self.spec, &self.layouts)
    }

    /// Whether it is right only on a device that keeps subnormal numbers: where all values are subnormal, and a slice of zeros is something else than
    /// one of the smallest numbers ([`keeps_subnormals`](super::keeps_subnormals)).
    pub fn needs_subnormals(&self) -> bool {
        needs_subnormals(&self.spec, &self.draw)
    }

    /// The line that repeats one run of it.
    pub fn line(&self, plan: &Plan) -> String {
        line(&self.spec, &self.draw, plan)
    }
}

/// [`Case::needs_subnormals`] of a problem.
pub fn needs_subnormals(spec: &Spec, draw: &Draw) -> bool {
    spec.norm == Norm::Weight && draw.data == Data::Subnormal
}

/// A run as a line, for `wgnorm check --case`.
pub fn line(spec: &Spec, draw: &Draw, plan: &Plan) -> String {
    let Plan { layout, place, tuning } = *plan;
    let spec = Spec { layout, place, tuning, ..spec.clone() };
    format!("{spec} {draw}").trim_end().to_owned()
}

fn layout_all() -> Vec<Layout> {
    super::layout::ALL.to_vec()
}

/// What batch norm is asked for.
fn kind(spec: &Spec) -> &'static str {
    match (&spec.norm, &spec.statistics) {
        (Norm::FrozenBatch, _) => "eval",
        _ if spec.mask.is_some() => "masked",
        (_, Statistics::Own) => "train",
        (_, Statistics::Given) => "given",
        (_, Statistics::Synchronised(_)) => "sync",
        (_, Statistics::Accumulated(_)) => "accumulated",
        (_, Statistics::Ghost(_)) => "ghost",
        (_, Statistics::Renorm(..)) => "renorm",
        (_, Statistics::Sequence(_)) => "sequence",
    }
}

/// A shape as names and lines have it.
fn name_of(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn some_cases_need_subnormal_numbers() {
        let needing: Vec<_> =
            quick().into_iter().filter(Case::needs_subnormals).map(|case| case.name).collect();
        assert_eq!(needing, ["builtin.weight_norm.subnormal.6x3x3x3"]);
    }

    #[test]
    fn names_are_unique_and_lines_repeat_their_case() {
        let cases = full();
        let mut names = HashSet::new();
        let twice = cases.iter().find(|case| !names.insert(case.name.as_str()));
        assert_eq!(twice.map(|case| &case.name), None);
        for case in &cases {
            let runs = case.runs();
            assert!(!runs.is_empty(), "{}", case.name);
            for (layout, variant) in runs {
                let plan = variant.plan(layout);
                let (draw, rest) = Draw::take(&case.line(&plan)).unwrap();
                let spec: Spec = rest.parse().unwrap();
                assert_eq!((draw, Plan::of(&spec)), (case.draw, plan), "{}", case.name);
                assert_eq!(
                    Spec {
                        layout: case.spec.layout,
                        place: case.spec.place,
                        tuning: case.spec.tuning,
                        ..spec
                    },
                    case.spec
                );
            }
        }
    }
}
