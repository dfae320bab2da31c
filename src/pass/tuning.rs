//! Passes to autotuning: what tells them apart, and how one is run with other plans on scratch tensors.
//!
//! Parameters, running statistics and what backward takes from forward are read where they are. Nothing of the caller's is written: running statistics
//! are not updated, and all outputs are twins.

use super::{OfBatch, Pass, Statistics, Sums};
use crate::base::curve::Curve;
use crate::base::error::Result;
use crate::base::gate::GateOrder;
use crate::engine::slot::Slot;
use crate::engine::tune::{Chosen, Pin, Problem, fastest, keep, look_up, pin, settled_for};
use crate::engine::verdicts::apart;
use crate::plan::AffineOf;
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::saved::Saved;

impl<'a> Pass<'a> {
    /// The same, planned as it was chosen.
    pub(super) fn planned<'c>(&self, chosen: &'c Chosen) -> Pass<'c>
    where
        'a: 'c,
    {
        let mut pass: Pass<'c> = *self;
        pass.spec.context = &chosen.context;
        pass.reason = chosen.reason.as_deref();
        pass
    }

    /// How the pass is planned.
    pub(super) async fn choose(&self) -> Chosen {
        let context = self.spec.context;
        // Scales are no tensor that could be written to a twin.
        // Nor is anything to be chosen of pieces.
        if self.int8.is_some() || self.spec.segments.is_some() {
            return Chosen::by_policy(context, None);
        }
        if let Some(settled) = settled_for(context) {
            return settled;
        }
        let problem = self.problem();
        match look_up(context, &problem) {
            Some(chosen) => chosen,
            // On the heap, so that futures stay small where nothing is measured. A plan that there is no memory for is none, and no error.
            None => pin(context, &problem, Box::pin(apart(self.measure(&problem))).await),
        }
    }

    async fn measure(&self, problem: &Problem) -> Result<Pin> {
        let context = self.spec.context;
        let tunings = problem.candidates(context.capabilities())?;
        let twins = self.tensors.twins(context).await?;
        let written = self.statistics.saved().filter(|_| self.tensors.has(Slot::Y));
        let room = match written {
            Some(saved) => Some(saved.twin(context).await?),
            None => None,
        };
        let sums = match self.statistics {
            Statistics::Batch(OfBatch { sums: Sums::Into(sums), .. }) => {
                Some(GradientSums::empty(context, sums.channels() as usize).await?)
            }
            _ => None,
        };
        let saved = room.as_ref().or(self.statistics.saved());
        let statistics = self.statistics.kept_apart(saved, sums.as_ref());
        let pass = Pass { tensors: twins.tensors(), statistics, ..*self };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(context, tuning);
            keep(&mut plans, tuning, pass.planned(&chosen).assemble().await)?;
        }
        fastest(context, &plans).await
    }

    /// The pass with everything that its speed depends on.
    fn problem(&self) -> Problem {
        let cut = self.spec.cut;
        let walk = self.walk(self.held());
        let problem =
            Problem::new(self.spec.context, self.op, cut.view(), walk, self.spec.activation, &self.words());
        problem.merging(cut.slices().merged)
    }

    /// What tells passes apart. Whether statistics are saved or tracked does not: a pass that recomputes another should have its plan, and so its
    /// bits.
    fn words(&self) -> Vec<(bool, &'static str)> {
        let tensors = &self.tensors;
        let mut words = match self.statistics {
            Statistics::Batch(of) => vec![
                (of.renorm.is_some() && tensors.has(Slot::Y), "renorm"),
                (matches!(of.sums, Sums::Into(_)), "into_sums"),
                (matches!(of.sums, Sums::From(_)), "from_sums"),
                (of.moments.is_some(), "from_moments"),
                (tensors.has(Slot::Dy) && of.saved.is_some_and(Saved::is_in_place), "from_y"),
            ],
            Statistics::Slices(_) => {
                let slices = self.spec.cut.slices();
                let (parameters, groups) = (slices.parameters, slices.groups());
                let is_modulated = parameters.affine == AffineOf::Place && parameters.step > 0 && groups == 1;
                vec![
                    (true, self.spec.layer),
                    (tensors.has(Slot::Gamma), "gamma"),
                    (tensors.has(Slot::Beta), "beta"),
                    (is_modulated, "modulated"),
                    (groups > 1, "in_groups"),
                    (parameters.affine == AffineOf::Row, "of_rows"),
                ]
            }
            Statistics::Running(_) => Vec::new(),
            Statistics::Curve(Curve::Tanh) => vec![(true, "dynamic_tanh")],
            Statistics::Curve(Curve::Erf) => vec![(true, "derf")],
        };
        let backward = tensors.has(Slot::Dy);
        let in_place = tensors.is_over(Slot::Y, Slot::X) || tensors.is_over(Slot::Dx, Slot::Dy);
        let sum_in_place = [(Slot::Sum, Slot::X), (Slot::Sum, Slot::Addend), (Slot::Dx, Slot::DSum)];
        words.extend([
            (self.mask.is_some(), "masked"),
            (self.gate == Some(GateOrder::NormFirst), "gate_last"),
            (self.gate == Some(GateOrder::GateFirst), "gate_first"),
            (tensors.has(Slot::Residual) && self.gate.is_none(), "residual"),
            (tensors.has(Slot::Sum), "sum"),
            (tensors.has(Slot::DSum), "d_sum"),
            (tensors.has(Slot::DResidual), "d_residual"),
            (backward && !tensors.has(Slot::Dx), "no_dx"),
            (backward && !tensors.has_sums(), "no_sums"),
            (in_place, "in_place"),
            (sum_in_place.iter().any(|(output, input)| tensors.is_over(*output, *input)), "sum_in_place"),
        ]);
        words
    }
}
