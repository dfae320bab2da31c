//! The passes of norms over axes that no walk has as they lie, or whose parameters are in another order: through copies with axes in another order, by a layer whose walk is
//! known.

use super::axes::{Arrangement, Axes};
use super::norm::sealed::Sealed;
use super::options::NormOptions;
use super::passes::{Passes, checked};
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::ops::map;
use crate::pass::input::{Gate, Input, Sum};
use crate::pass::parameters::Owned;
use crate::pass::{Accumulation, Affine, GradientTargets};
use crate::plan::Op;
use crate::statistics::saved::Saved;

/// The layer of another kind.
struct Arranged {
    kind: Box<dyn Sealed>,
    options: NormOptions,
    parameters: Owned,
}

impl Arranged {
    fn passes<'l>(&'l self, context: &'l Context) -> Passes<'l> {
        let Self { kind, options, parameters } = self;
        Passes { context, kind: &**kind, options, parameters }
    }
}

/// Copies around a pass.
struct Copies<'c> {
    context: &'c Context,
    before: Vec<Prepared>,
    /// What is copied where behind the pass. Prepared behind it too, because recipes are in the order of preparation.
    after: Vec<(Tensor, Axes, Tensor)>,
    bytes: u64,
}

impl<'c> Copies<'c> {
    fn new(context: &'c Context) -> Self {
        Self { context, before: Vec::new(), after: Vec::new(), bytes: 0 }
    }

    async fn room(&mut self, tensor: &Tensor, order: Axes) -> Result<Tensor> {
        let shape = order.permute(tensor.shape())?;
        self.bytes += tensor.byte_len();
        self.context.zeros_as(shape.dims(), tensor.dtype()).await
    }

    /// What a pass reads in the place of a tensor: a copy with axes in that order, if one is given.
    async fn read(&mut self, tensor: &Tensor, order: Option<Axes>) -> Result<Tensor> {
        let Some(order) = order else { return Ok(tensor.clone()) };
        let copy = self.room(tensor, order).await?;
        self.before.push(map::prepare_permuted(self.context, tensor, order.get(), &copy).await?);
        Ok(copy)
    }

    /// What a pass writes in its place; as large as what is read, so what can be read can be written.
    async fn written(&mut self, tensor: &Tensor, order: Option<Axes>) -> Result<Tensor> {
        let Some(order) = order else { return Ok(tensor.clone()) };
        let copy = self.room(tensor, order).await?;
        self.after.push((copy.clone(), order.inverse(), tensor.clone()));
        Ok(copy)
    }

    /// What a pass adds to in its place.
    async fn added_to(&mut self, tensor: &Tensor, order: Option<Axes>) -> Result<Tensor> {
        let Some(order) = order else { return Ok(tensor.clone()) };
        let copy = self.read(tensor, Some(order)).await?;
        self.after.push((copy.clone(), order.inverse(), tensor.clone()));
        Ok(copy)
    }

    /// The pass among them.
    async fn around(self, op: Op, pass: Prepared, reason: String) -> Result<Prepared> {
        let Self { context, before, after, bytes } = self;
        // What goes through copies is neither input nor output.
        let floor = pass.traffic().floor_bytes;
        let mut all = vec![pass.after(Prepared::sequence(context, op, before))];
        for (copy, order, tensor) in after {
            all.push(map::prepare_permuted(context, &copy, order.get(), &tensor).await?);
        }
        Ok(Prepared::sequence(context, op, all).with_floor(floor).with_workspace(bytes).telling(reason))
    }
}

impl Arrangement {
    /// Why there are copies.
    fn reason(&self, x: Shape) -> String {
        match self.x {
            Some(order) => format!(
                "axes: of {x} in the order {:?}, through copies, because they alternate with the others more often than two strides tell",
                order.get()
            ),
            None => "axes: not in the order of x, so the parameters go through copies".to_owned(),
        }
    }
}

impl Passes<'_> {
    /// How tensors are arranged for this layer, if they must be.
    pub(super) fn arrangement(self, x: Shape) -> Option<Arrangement> {
        let found = self.kind.arrangement(x);
        found.filter(|arrangement| arrangement.x.is_some() || self.options.affine != Affine::None)
    }

    /// The layer that is given arranged tensors.
    async fn arranged(self, copies: &mut Copies<'_>, arrangement: Arrangement) -> Result<Arranged> {
        let Owned { gamma, beta, .. } = self.parameters;
        let mut parameters = Owned::default();
        for (own, arranged) in [(gamma, &mut parameters.gamma), (beta, &mut parameters.beta)] {
            if let Some(own) = own {
                *arranged = Some(copies.read(own, arrangement.parameters).await?);
            }
        }
        let options = checked(self.context, &*arrangement.kind, *self.options, &parameters)?;
        Ok(Arranged { kind: arrangement.kind, options, parameters })
    }

    /// As [`prepare_forward`](Self::prepare_forward), of what has been checked.
    pub(super) async fn prepare_arranged_forward(
        self,
        arrangement: Arrangement,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Prepared> {
        let mut copies = Copies::new(self.context);
        let reason = arrangement.reason(input.x.shape());
        let order = arrangement.x;
        let layer = self.arranged(&mut copies, arrangement).await?;
        let tensors = Tensors::of(&mut copies, input, order).await?;
        let y = copies.written(y, order).await?;
        let pass =
            Box::pin(layer.passes(self.context).prepare_forward(tensors.input(input), &y, saved)).await?;
        copies.around(Op::TrainForward, pass, reason).await
    }

    /// As [`prepare_backward`](Self::prepare_backward), of what has been checked.
    pub(super) async fn prepare_arranged_backward(
        self,
        arrangement: Arrangement,
        input: Input<'_>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let mut copies = Copies::new(self.context);
        let reason = arrangement.reason(input.x.shape());
        let (order, of_parameters) = (arrangement.x, arrangement.parameters);
        let layer = self.arranged(&mut copies, arrangement).await?;
        let tensors = Tensors::of(&mut copies, input, order).await?;
        let dy = copies.read(dy, order).await?;
        let mut written = [None, None, None];
        for (tensor, copy) in [targets.dx, targets.d_residual, targets.d_gate].into_iter().zip(&mut written) {
            if let Some(tensor) = tensor {
                *copy = Some(copies.written(tensor, order).await?);
            }
        }
        let mut sums = [None, None];
        for (tensor, copy) in [targets.dgamma, targets.dbeta].into_iter().zip(&mut sums) {
            if let Some(tensor) = tensor {
                *copy = Some(match targets.accumulation {
                    Accumulation::Write => copies.written(tensor, of_parameters).await?,
                    Accumulation::Add => copies.added_to(tensor, of_parameters).await?,
                });
            }
        }
        let [dx, d_residual, d_gate] = &written;
        let [dgamma, dbeta] = &sums;
        let arranged = GradientTargets {
            dx: dx.as_ref(),
            d_residual: d_residual.as_ref(),
            d_gate: d_gate.as_ref(),
            dgamma: dgamma.as_ref(),
            dbeta: dbeta.as_ref(),
            ..*targets
        };
        let pass = Box::pin(layer.passes(self.context).prepare_backward(
            tensors.input(input),
            &dy,
            saved,
            &arranged,
        ))
        .await?;
        copies.around(Op::TrainBackward, pass, reason).await
    }
}

/// What of an input is like x, arranged.
struct Tensors {
    x: Tensor,
    residual: Option<Tensor>,
    gate: Option<Tensor>,
    sum: Option<[Tensor; 2]>,
    d_sum: Option<Tensor>,
}

impl Tensors {
    async fn of(copies: &mut Copies<'_>, input: Input<'_>, order: Option<Axes>) -> Result<Self> {
        let x = copies.read(input.x, order).await?;
        let mut others = [None, None, None];
        let all = [input.residual, input.gate.map(|gate| gate.gate), input.d_sum];
        for (tensor, copy) in all.into_iter().zip(&mut others) {
            if let Some(tensor) = tensor {
                *copy = Some(copies.read(tensor, order).await?);
            }
        }
        let sum = match input.sum {
            None => None,
            Some(Sum { addend, sum }) => {
                Some([copies.read(addend, order).await?, copies.written(sum, order).await?])
            }
        };
        let [residual, gate, d_sum] = others;
        Ok(Self { x, residual, gate, sum, d_sum })
    }

    /// The same input with these in their places.
    fn input<'t>(&'t self, input: Input<'t>) -> Input<'t> {
        let Self { x, residual, gate, sum, d_sum } = self;
        Input {
            x,
            residual: residual.as_ref(),
            gate: input.gate.zip(gate.as_ref()).map(|(Gate { order, .. }, gate)| Gate { gate, order }),
            sum: sum.as_ref().map(|[addend, sum]| Sum { addend, sum }),
            d_sum: d_sum.as_ref(),
            ..input
        }
    }
}
