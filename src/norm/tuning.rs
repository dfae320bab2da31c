//! The operations of a layer to autotuning: what tells them apart, and how each is run with other plans on scratch tensors.
//!
//! Gamma, beta, running statistics and what backward takes from forward are read where they are. Nothing of the caller's is written:
//! running statistics are not updated, and all outputs are twins.

use super::batch::BatchNorm;
use super::frozen::FrozenBatchNorm;
use super::options::GradientTargets;
use super::saved::Saved;
use crate::base::error::Result;
use crate::base::shape::Channels;
use crate::engine::context::Context;
use crate::engine::input::Input;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::tune::{Chosen, Pin, Problem, Twins, fastest, keep, look_up, pin, settled_for};
use crate::plan::Op;
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::moments::Moments;

/// The arguments of a forward pass, checked.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub view: Channels,
    pub input: Input<'a>,
    pub y: &'a Tensor,
    /// Statistics that were computed before.
    pub moments: Option<&'a Moments>,
    /// Statistics are corrected before they are used, by a dispatch of its own.
    pub renorm: bool,
}

impl<'a> Forward<'a> {
    /// The tensors that are walked.
    pub fn tensors(&self) -> Vec<(Slot, &'a Tensor)> {
        let mut tensors = vec![(Slot::X, self.input.x), (Slot::Y, self.y)];
        tensors.extend(self.input.residual.map(|residual| (Slot::Residual, residual)));
        tensors
    }

    /// What a resident kernel of training holds for each value of x: where statistics are given or corrected, or values masked, there
    /// is none.
    pub fn held(&self) -> Option<u32> {
        let plain = self.moments.is_none() && self.input.mask.is_none() && !self.renorm;
        Op::TrainForward.held().filter(|_| plain)
    }

    /// What tells the problems of forward passes apart. Whether statistics are saved or tracked does not: a pass that recomputes
    /// another should have its plan, and so its bits.
    fn words(&self) -> [(bool, &'static str); 5] {
        [
            (self.renorm, "renorm"),
            (self.input.mask.is_some(), "masked"),
            (self.input.residual.is_some(), "residual"),
            (self.moments.is_some(), "from_moments"),
            (self.y.is_same_place(self.input.x), "in_place"),
        ]
    }
}

/// The arguments of a backward pass, checked.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub view: Channels,
    pub input: Input<'a>,
    pub dy: &'a Tensor,
    pub targets: &'a GradientTargets<'a>,
    pub sums: Sums<'a>,
}

/// Whose gradient sums a backward pass takes, and where they go.
#[derive(Clone, Copy)]
pub(super) enum Sums<'a> {
    /// Of x and dy, for the operation itself.
    Own,
    /// Of x and dy, as a value.
    Into(&'a GradientSums),
    /// Given.
    From(&'a GradientSums),
}

impl Backward<'_> {
    /// What a resident kernel of training holds for each value of x: without both the sums and dx there is none.
    pub fn held(&self) -> Option<u32> {
        let both = self.targets.dx.is_some() && matches!(self.sums, Sums::Own) && self.input.mask.is_none();
        Op::TrainBackward.held().filter(|_| both)
    }

    /// What tells the problems of backward passes apart.
    fn words(&self, from_y: bool) -> [(bool, &'static str); 9] {
        let Self { input, dy, targets, sums, .. } = self;
        [
            (input.mask.is_some(), "masked"),
            (matches!(sums, Sums::Into(_)), "into_sums"),
            (matches!(sums, Sums::From(_)), "from_sums"),
            (input.residual.is_some(), "residual"),
            (targets.d_residual.is_some(), "d_residual"),
            (from_y, "from_y"),
            (targets.dx.is_none(), "no_dx"),
            (!targets.has_sums(), "no_sums"),
            (targets.dx.is_some_and(|dx| dx.is_same_place(dy)), "in_place"),
        ]
    }
}

/// Twins of everything that a backward pass walks or writes.
struct BackwardTwins {
    x: Tensor,
    residual: Option<Tensor>,
    dy: Tensor,
    dx: Option<Tensor>,
    d_residual: Option<Tensor>,
    dgamma: Option<Tensor>,
    dbeta: Option<Tensor>,
}

impl BackwardTwins {
    async fn new(context: &Context, backward: &Backward<'_>) -> Result<Self> {
        let Backward { input, dy, targets, .. } = *backward;
        let mut twins = Twins::new(context);
        Ok(Self {
            x: twins.of(input.x).await?,
            residual: twins.of_some(input.residual).await?,
            dy: twins.of(dy).await?,
            dx: twins.of_some(targets.dx).await?,
            d_residual: twins.of_some(targets.d_residual).await?,
            dgamma: twins.of_some(targets.dgamma).await?,
            dbeta: twins.of_some(targets.dbeta).await?,
        })
    }

    fn targets(&self, like: &GradientTargets<'_>) -> GradientTargets<'_> {
        GradientTargets {
            dx: self.dx.as_ref(),
            d_residual: self.d_residual.as_ref(),
            dgamma: self.dgamma.as_ref(),
            dbeta: self.dbeta.as_ref(),
            accumulation: like.accumulation,
        }
    }

    fn input<'a>(&'a self, like: Input<'a>) -> Input<'a> {
        Input { x: &self.x, residual: self.residual.as_ref(), ..like }
    }
}

impl BatchNorm {
    /// How a training forward pass is planned.
    pub(super) async fn choose_forward(&self, forward: &Forward<'_>, saved: Option<&Saved>) -> Chosen {
        let context = &self.parts.context;
        if let Some(settled) = settled_for(context) {
            return settled;
        }
        let problem = self.parts.problem(
            Op::TrainForward,
            forward.view,
            forward.held(),
            forward.input.mask.is_some() && forward.moments.is_none(),
            &forward.tensors(),
            &forward.words(),
        );
        match look_up(context, &problem) {
            Some(chosen) => chosen,
            // On the heap, so that futures stay small where nothing is measured.
            None => pin(context, &problem, Box::pin(self.measure_forward(&problem, forward, saved)).await),
        }
    }

    async fn measure_forward(
        &self,
        problem: &Problem,
        forward: &Forward<'_>,
        saved: Option<&Saved>,
    ) -> Result<Pin> {
        let context = &self.parts.context;
        let tunings = problem.candidates(context.capabilities())?;
        let mut twins = Twins::new(context);
        let x = twins.of(forward.input.x).await?;
        let residual = twins.of_some(forward.input.residual).await?;
        let y = twins.of(forward.y).await?;
        let saved = match saved {
            Some(saved) => Some(saved.like(context, &x).await?),
            None => None,
        };
        let input = Input { x: &x, residual: residual.as_ref(), ..forward.input };
        let forward = Forward { input, y: &y, ..*forward };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(context, tuning);
            let prepared = self.assemble_forward(&chosen, &forward, saved.as_ref(), false).await;
            keep(&mut plans, tuning, prepared)?;
        }
        fastest(context, &plans).await
    }

    /// How a backward pass is planned.
    pub(super) async fn choose_backward(&self, backward: &Backward<'_>, saved: &Saved) -> Chosen {
        let context = &self.parts.context;
        if let Some(settled) = settled_for(context) {
            return settled;
        }
        let tensors = self.backward_tensors(backward, saved);
        let words = backward.words(saved.is_in_place());
        let problem = self.parts.problem(
            Op::TrainBackward,
            backward.view,
            backward.held(),
            backward.input.mask.is_some(),
            &tensors,
            &words,
        );
        match look_up(context, &problem) {
            Some(chosen) => chosen,
            None => pin(context, &problem, Box::pin(self.measure_backward(&problem, backward, saved)).await),
        }
    }

    async fn measure_backward(
        &self,
        problem: &Problem,
        backward: &Backward<'_>,
        saved: &Saved,
    ) -> Result<Pin> {
        let context = &self.parts.context;
        let tunings = problem.candidates(context.capabilities())?;
        let twins = BackwardTwins::new(context, backward).await?;
        let targets = twins.targets(backward.targets);
        let backward =
            Backward { input: twins.input(backward.input), dy: &twins.dy, targets: &targets, ..*backward };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(context, tuning);
            keep(&mut plans, tuning, self.assemble_backward(&chosen, &backward, saved).await)?;
        }
        fastest(context, &plans).await
    }
}

impl FrozenBatchNorm {
    /// How an inference pass is planned.
    pub(super) async fn choose_forward(&self, forward: &Forward<'_>) -> Chosen {
        let context = &self.parts.context;
        if let Some(settled) = settled_for(context) {
            return settled;
        }
        let problem = self.parts.problem(
            Op::Inference,
            forward.view,
            None,
            false,
            &forward.tensors(),
            &forward.words(),
        );
        match look_up(context, &problem) {
            Some(chosen) => chosen,
            None => pin(context, &problem, Box::pin(self.measure_forward(&problem, forward)).await),
        }
    }

    async fn measure_forward(&self, problem: &Problem, forward: &Forward<'_>) -> Result<Pin> {
        let context = &self.parts.context;
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
    pub(super) async fn choose_backward(&self, backward: &Backward<'_>) -> Chosen {
        let context = &self.parts.context;
        if let Some(settled) = settled_for(context) {
            return settled;
        }
        let tensors = self.backward_tensors(backward);
        let problem = self.parts.problem(
            Op::FrozenBackward,
            backward.view,
            None,
            backward.input.mask.is_some(),
            &tensors,
            &backward.words(false),
        );
        match look_up(context, &problem) {
            Some(chosen) => chosen,
            None => pin(context, &problem, Box::pin(self.measure_backward(&problem, backward)).await),
        }
    }

    async fn measure_backward(&self, problem: &Problem, backward: &Backward<'_>) -> Result<Pin> {
        let context = &self.parts.context;
        let tunings = problem.candidates(context.capabilities())?;
        let twins = BackwardTwins::new(context, backward).await?;
        let targets = twins.targets(backward.targets);
        let backward =
            Backward { input: twins.input(backward.input), dy: &twins.dy, targets: &targets, ..*backward };
        let mut plans = Vec::new();
        for tuning in tunings {
            let chosen = Chosen::candidate(context, tuning);
            keep(&mut plans, tuning, self.assemble_backward(&chosen, &backward).await)?;
        }
        fastest(context, &plans).await
    }
}
