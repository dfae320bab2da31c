//! The passes of a norm to autotuning: what tells them apart, and how each is run with other plans on scratch tensors. Gamma, beta and what forward
//! has saved are read where they are; all outputs are twins.

use super::backward::Backward;
use super::forward::{Forward, Layer};
use super::saved::SavedSlices;
use crate::base::error::Result;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::tune::{Chosen, Pin, Problem, Twins, fastest, keep, look_up, pin, settled_for};
use crate::norm::GradientTargets;
use crate::plan::Op;

impl<'a> Layer<'a> {
    /// The same layer, planned as it was chosen.
    pub fn planned<'c>(&self, chosen: &'c Chosen) -> Layer<'c>
    where
        'a: 'c,
    {
        Layer { context: &chosen.context, reason: chosen.reason.as_deref(), ..*self }
    }

    /// How a forward pass is planned.
    pub async fn choose_forward(&self, forward: &Forward<'_>) -> Chosen {
        if let Some(settled) = settled_for(self.context) {
            return settled;
        }
        let Forward { x, residual, addend, y, .. } = *forward;
        let words = [
            (residual.is_some(), "residual"),
            (addend.is_some(), "sum"),
            (y.is_same_place(x), "in_place"),
            (
                addend.is_some_and(|(addend, sum)| sum.is_same_place(x) || sum.is_same_place(addend)),
                "sum_in_place",
            ),
        ];
        let held = Op::TrainForward.held().filter(|_| self.slices.folds_in_map());
        let problem = self.problem(Op::TrainForward, held, &forward.tensors(), &words);
        match look_up(self.context, &problem) {
            Some(chosen) => chosen,
            // On the heap, so that futures stay small where nothing is measured.
            None => pin(self.context, &problem, Box::pin(self.measure_forward(&problem, forward)).await),
        }
    }

    async fn measure_forward(&self, problem: &Problem, forward: &Forward<'_>) -> Result<Pin> {
        let Forward { x, residual, addend, y, saved } = *forward;
        let tunings = problem.candidates(self.context.capabilities())?;
        let mut twins = Twins::new(self.context);
        let x = twins.of(x).await?;
        let residual = twins.of_some(residual).await?;
        let addend = match addend {
            Some((addend, sum)) => Some((twins.of(addend).await?, twins.of(sum).await?)),
            None => None,
        };
        let y = twins.of(y).await?;
        let saved = match saved {
            Some(_) => {
                let (statistics, count) = (self.slices.statistics(), self.slices.count());
                Some(SavedSlices::unwritten(self.context, statistics, count, x.dtype()).await?)
            }
            None => None,
        };
        let twin = Forward {
            x: &x,
            residual: residual.as_ref(),
            addend: addend.as_ref().map(|(addend, sum)| (addend, sum)),
            y: &y,
            saved: saved.as_ref(),
        };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(self.context, tuning);
            keep(&mut plans, tuning, self.planned(&chosen).assemble_forward(&twin).await)?;
        }
        fastest(self.context, &plans).await
    }

    /// How a backward pass is planned.
    pub async fn choose_backward(&self, backward: &Backward<'_>) -> Chosen {
        if let Some(settled) = settled_for(self.context) {
            return settled;
        }
        let Backward { residual, dy, d_sum, targets, .. } = *backward;
        let over = |tensor: Option<&Tensor>| {
            tensor.zip(targets.dx).is_some_and(|(tensor, dx)| dx.is_same_place(tensor))
        };
        let words = [
            (residual.is_some(), "residual"),
            (d_sum.is_some(), "d_sum"),
            (targets.d_residual.is_some(), "d_residual"),
            (targets.dx.is_none(), "no_dx"),
            (!targets.has_sums(), "no_sums"),
            (over(Some(dy)), "in_place"),
            (over(d_sum), "sum_in_place"),
        ];
        let problem = self.problem(Op::TrainBackward, self.held(backward), &backward.tensors(), &words);
        match look_up(self.context, &problem) {
            Some(chosen) => chosen,
            None => pin(self.context, &problem, Box::pin(self.measure_backward(&problem, backward)).await),
        }
    }

    async fn measure_backward(&self, problem: &Problem, backward: &Backward<'_>) -> Result<Pin> {
        let Backward { x, residual, dy, d_sum, saved, targets } = *backward;
        let tunings = problem.candidates(self.context.capabilities())?;
        let mut twins = Twins::new(self.context);
        let x = twins.of(x).await?;
        let residual = twins.of_some(residual).await?;
        let dy = twins.of(dy).await?;
        let d_sum = twins.of_some(d_sum).await?;
        let (dx, d_residual) = (twins.of_some(targets.dx).await?, twins.of_some(targets.d_residual).await?);
        let (dgamma, dbeta) = (twins.of_some(targets.dgamma).await?, twins.of_some(targets.dbeta).await?);
        let targets = GradientTargets::default()
            .dx(dx.as_ref())
            .d_residual(d_residual.as_ref())
            .dgamma(dgamma.as_ref())
            .dbeta(dbeta.as_ref())
            .accumulation(targets.accumulation);
        let (residual, d_sum) = (residual.as_ref(), d_sum.as_ref());
        let twin = Backward { x: &x, residual, dy: &dy, d_sum, saved, targets: &targets };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(self.context, tuning);
            keep(&mut plans, tuning, self.planned(&chosen).assemble_backward(&twin).await)?;
        }
        fastest(self.context, &plans).await
    }

    /// A pass with everything that its speed depends on.
    fn problem(
        &self,
        op: Op,
        held: Option<u32>,
        tensors: &[(Slot, &Tensor)],
        words: &[(bool, &'static str)],
    ) -> Problem {
        let walk = self.walk(self.slices.pattern, held, true, tensors);
        let mut all = vec![
            (true, self.name),
            (self.affine.gamma.is_some(), "gamma"),
            (self.affine.beta.is_some(), "beta"),
            (self.slices.parameters.of_place && self.slices.parameters.step > 0, "modulated"),
        ];
        all.extend(words);
        let view = self.slices.pattern.view();
        let problem = Problem::new(self.context, op, view, walk, self.activation, &all);
        problem.merging(self.slices.merged)
    }
}
