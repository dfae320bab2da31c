//! The operations of a curve to autotuning: what tells them apart, and how each is run with other plans on scratch tensors.

use super::layer::Layer;
use super::options::CurveTargets;
use crate::base::curve::Curve;
use crate::base::error::Result;
use crate::base::shape::Channels;
use crate::engine::input::Input;
use crate::engine::tensor::Tensor;
use crate::engine::tune::{Chosen, Pin, Problem, Twins, fastest, keep, look_up, pin, settled_for};
use crate::norm::tuning::Forward;
use crate::plan::Op;

/// The arguments of a backward pass, checked.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub view: Channels,
    pub input: Input<'a>,
    pub dy: &'a Tensor,
    pub targets: &'a CurveTargets<'a>,
}

/// The function in a problem's words, where tanh is the activation.
const fn word(curve: Curve) -> &'static str {
    match curve {
        Curve::Tanh => "dynamic_tanh",
        Curve::Erf => "derf",
    }
}

impl Layer {
    /// How a forward pass is planned.
    pub async fn choose_forward(&self, forward: &Forward<'_>) -> Chosen {
        if let Some(settled) = settled_for(&self.context) {
            return settled;
        }
        let Forward { view, input, y, .. } = *forward;
        let words = [
            (true, word(self.curve)),
            (input.residual.is_some(), "residual"),
            (y.is_same_place(input.x), "in_place"),
        ];
        let walk = self.walk(view, false, &forward.tensors());
        let activation = self.options.activation;
        let problem = Problem::new(&self.context, Op::CurveForward, view, walk, activation, &words);
        match look_up(&self.context, &problem) {
            Some(chosen) => chosen,
            // On the heap, so that futures stay small where nothing is measured.
            None => pin(&self.context, &problem, Box::pin(self.measure_forward(&problem, forward)).await),
        }
    }

    async fn measure_forward(&self, problem: &Problem, forward: &Forward<'_>) -> Result<Pin> {
        let context = &self.context;
        let tunings = problem.candidates(context.capabilities())?;
        let mut twins = Twins::new(context);
        let x = twins.of(forward.input.x).await?;
        let residual = twins.of_some(forward.input.residual).await?;
        let y = twins.of(forward.y).await?;
        let input = Input { x: &x, residual: residual.as_ref(), ..forward.input };
        let forward = Forward { input, y: &y, ..*forward };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(context, tuning);
            keep(&mut plans, tuning, self.assemble_forward(&chosen, &forward).await)?;
        }
        fastest(context, &plans).await
    }

    /// How a backward pass is planned.
    pub async fn choose_backward(&self, backward: &Backward<'_>) -> Chosen {
        if let Some(settled) = settled_for(&self.context) {
            return settled;
        }
        let Backward { view, input, dy, targets } = *backward;
        let words = [
            (true, word(self.curve)),
            (input.mask.is_some(), "masked"),
            (input.residual.is_some(), "residual"),
            (targets.d_residual.is_some(), "d_residual"),
            (targets.dx.is_none(), "no_dx"),
            (!targets.has_sums(), "no_sums"),
            (targets.dx.is_some_and(|dx| dx.is_same_place(dy)), "in_place"),
        ];
        let walk = self.walk(view, input.mask.is_some(), &self.backward_tensors(backward));
        let activation = self.options.activation;
        let problem = Problem::new(&self.context, Op::CurveBackward, view, walk, activation, &words);
        match look_up(&self.context, &problem) {
            Some(chosen) => chosen,
            None => pin(&self.context, &problem, Box::pin(self.measure_backward(&problem, backward)).await),
        }
    }

    async fn measure_backward(&self, problem: &Problem, backward: &Backward<'_>) -> Result<Pin> {
        let context = &self.context;
        let Backward { input, dy, targets, .. } = *backward;
        let tunings = problem.candidates(context.capabilities())?;
        let mut twins = Twins::new(context);
        let (x, dy) = (twins.of(input.x).await?, twins.of(dy).await?);
        let residual = twins.of_some(input.residual).await?;
        let dx = twins.of_some(targets.dx).await?;
        let d_residual = twins.of_some(targets.d_residual).await?;
        let (dgamma, dbeta) = (twins.of_some(targets.dgamma).await?, twins.of_some(targets.dbeta).await?);
        let (dalpha, dshift) = (twins.of_some(targets.dalpha).await?, twins.of_some(targets.dshift).await?);
        let targets = CurveTargets {
            dx: dx.as_ref(),
            d_residual: d_residual.as_ref(),
            dgamma: dgamma.as_ref(),
            dbeta: dbeta.as_ref(),
            dalpha: dalpha.as_ref(),
            dshift: dshift.as_ref(),
            accumulation: targets.accumulation,
        };
        let input = Input { x: &x, residual: residual.as_ref(), ..input };
        let backward = Backward { input, dy: &dy, targets: &targets, ..*backward };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(context, tuning);
            keep(&mut plans, tuning, self.assemble_backward(&chosen, &backward).await)?;
        }
        fastest(context, &plans).await
    }
}
