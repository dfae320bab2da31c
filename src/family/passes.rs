//! The passes of the norms of the family, whatever their kind.

use super::norm::sealed::Sealed;
use super::options::NormOptions;
use crate::base::activation::Activation;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::input::{Input, Modulation};
use crate::pass::parameters::{Owned, Parameters};
use crate::pass::spec::{Cut, Extra};
use crate::pass::{Affine, GradientTargets, Gradients, OfSlices, Pass, Reads, Spec, Statistics};
use crate::pass::{SecondGradients, SecondTargets, Tangents};
use crate::plan::{Op, Slices};
use crate::statistics::saved::{Kept, Note, Saved};

/// A layer as its passes see it. One type for all kinds: what is generic is compiled once for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passes<'l> {
    pub context: &'l Context,
    pub kind: &'l dyn Sealed,
    pub options: &'l NormOptions,
    pub parameters: &'l Owned,
}

/// What of an input a norm of the family has no use for.
const REFUSES: &[(Extra, &str)] =
    &[(Extra::Mask, "its slices are not the rows of x; pad x where it is to have no effect"), MOMENTS];
const REFUSES_OF_ROWS: &[(Extra, &str)] = &[MOMENTS];
const REFUSES_OF_GROUPS: &[(Extra, &str)] = &[(Extra::Mask, "its rows are in groups"), MOMENTS];
const MOMENTS: (Extra, &str) = (Extra::Moments, "its statistics are those of each of its slices");

/// The options of a layer with these parameters.
///
/// # Errors
/// Those of a layer that is made.
pub(super) fn checked(
    context: &Context,
    kind: &dyn Sealed,
    mut options: NormOptions,
    parameters: &Owned,
) -> Result<NormOptions> {
    options.check()?;
    let given = parameters.get();
    options.affine = given.affine();
    match kind.parameters() {
        Some(shape) => given.check_with(
            context,
            shape,
            [kind.alpha().unwrap_or(Shape::per_channel(1)), Shape::per_channel(1)],
        )?,
        None if options.affine != Affine::None => {
            let what = if options.affine.has_gamma() { "gamma" } else { "beta" };
            let (layer, why) = (kind.name(), "it has no parameters");
            return Err(Error::Unsupported { layer, what, why });
        }
        None => {}
    }
    Ok(options)
}

impl<'l> Passes<'l> {
    pub fn kept(&self, input: Input<'_>) -> Result<Kept> {
        match input.segments {
            Some(_) => Ok(self.check(input)?.kept(self.kind.scheme())),
            None => Ok(Cut::Slices(self.slices(input)?).kept(self.kind.scheme())),
        }
    }

    /// The slices of x, in segments if it comes with them.
    fn slices(self, input: Input<'_>) -> Result<Slices> {
        let (x, layer) = (input.x, self.kind.name());
        let slices = self.kind.slices(x, input.modulation.is_some())?;
        let Some(segments) = input.segments else {
            if self.kind.needs_segments() {
                let (what, why) =
                    ("an x without segments", "say which rows are a graph: x.in_segments(&segments)");
                return Err(Error::Unsupported { layer, what, why });
            }
            return Ok(slices);
        };
        let unsupported = |why| Err(Error::Unsupported { layer, what: "segments", why });
        let Some(merged) = self.kind.merged_in_segments() else {
            return unsupported(
                "only instance, group and layer norm of `[rows, C]` and GraphNorm have statistics of them",
            );
        };
        if x.shape().rank() != 2 {
            return Err(Error::Rank { what: "an x in segments", expected: "2", got: x.shape().rank() });
        }
        let [rows, columns] = [0, 1].map(|axis| x.shape().dims()[axis] as u64);
        Ok(Slices::columns_of_segments(rows, columns, segments.segments(), merged))
    }

    /// [`Norm::prepare_forward`](super::Norm::prepare_forward).
    pub async fn prepare_forward(
        self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Prepared> {
        let (spec, x) = (self.check(input)?, input.x);
        if input.d_sum.is_some() {
            let (what, why) = ("d_sum", "it is a gradient; give it to the backward pass");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        spec.check_like("y", y, x)?;
        if let Some(saved) = saved {
            self.check_trained(&spec, x)?;
            saved.check(self.context, spec.layer, spec.kept(self.kind.scheme()), x.dtype())?;
            if y.is_same_place(x) && input.sum.is_none() {
                let why = "y is written over x, which backward needs; save nothing, or keep x";
                return Err(Error::InPlace { why });
            }
        }
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(self.context, Op::TrainForward));
        }
        if let (Some(arrangement), None) = (self.arrangement(x.shape()), input.segments) {
            return self.prepare_arranged_forward(arrangement, input, y, saved).await;
        }
        let statistics = self.statistics(saved);
        let prepared = Pass::forward(Op::TrainForward, spec, input, y, statistics).prepare().await?;
        if let Some(saved) = saved {
            saved.note(self.noted(input));
        }
        Ok(prepared)
    }

    /// [`Norm::forward`](super::Norm::forward).
    pub async fn forward(self, input: Input<'_>) -> Result<(Tensor, Saved)> {
        together(async {
            let spec = self.check(input)?;
            self.check_trained(&spec, input.x)?;
            let kept = spec.kept(self.kind.scheme());
            let saved = Saved::unwritten(self.context, kept, input.x.dtype()).await?;
            let y = self.context.zeros_like(input.x).await?;
            let forward = self.prepare_forward(input, &y, Some(&saved)).await?;
            self.context.submit(&[&forward]).await?;
            Ok((y, saved))
        })
        .await
    }

    /// [`Norm::infer`](super::Norm::infer).
    pub async fn infer(self, input: Input<'_>) -> Result<Tensor> {
        together(async {
            self.check(input)?;
            let y = self.context.zeros_like(input.x).await?;
            let forward = self.prepare_forward(input, &y, None).await?;
            self.context.submit(&[&forward]).await?;
            Ok(y)
        })
        .await
    }

    /// [`Norm::prepare_backward`](super::Norm::prepare_backward).
    pub async fn prepare_backward(
        self,
        input: Input<'_>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let spec = self.check(input)?;
        self.check_trained(&spec, input.x)?;
        targets.check_any()?;
        spec.check_targets(input, dy, targets)?;
        saved.check(self.context, spec.layer, spec.kept(self.kind.scheme()), input.x.dtype())?;
        saved.check_same(self.noted(input))?;
        if spec.cut.is_empty() {
            return spec.prepare_empty_sums(Op::TrainBackward, input.x.dtype(), targets).await;
        }
        if let (Some(arrangement), None) = (self.arrangement(input.x.shape()), input.segments) {
            return self.prepare_arranged_backward(arrangement, input, dy, saved, targets).await;
        }
        // Without an activation dz is dy, whatever the residual is.
        let residual = self.options.activation != Activation::None;
        let reads = Reads { x: true, residual, parameters: true };
        let statistics = self.statistics(Some(saved));
        Pass::backward(Op::TrainBackward, spec, (input, dy), targets, reads, statistics).prepare().await
    }

    /// [`Norm::backward`](super::Norm::backward).
    pub async fn backward(self, input: Input<'_>, dy: &Tensor, saved: &Saved) -> Result<Gradients> {
        together(async {
            let gradients = self.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, saved, &gradients.computed(dy)).await?;
            self.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// [`Norm::prepare_jvp`](super::Norm::prepare_jvp).
    pub async fn prepare_jvp(
        self,
        input: Input<'_>,
        saved: &Saved,
        tangents: &Tangents<'_>,
        y_tangent: &Tensor,
    ) -> Result<Prepared> {
        let spec = self.check_differentiated(input, saved)?;
        spec.prepare_jvp(input, tangents, y_tangent, self.statistics(Some(saved))).await
    }

    /// [`Norm::jvp`](super::Norm::jvp).
    pub async fn jvp(self, input: Input<'_>, saved: &Saved, tangents: &Tangents<'_>) -> Result<Tensor> {
        together(async {
            self.check(input)?;
            let y_tangent = self.context.zeros_like(input.x).await?;
            let jvp = self.prepare_jvp(input, saved, tangents, &y_tangent).await?;
            self.context.submit(&[&jvp]).await?;
            Ok(y_tangent)
        })
        .await
    }

    /// [`Norm::prepare_double_backward`](super::Norm::prepare_double_backward).
    pub async fn prepare_double_backward(
        self,
        (input, dy): (Input<'_>, &Tensor),
        saved: &Saved,
        tangents: &Tangents<'_>,
        targets: &SecondTargets<'_>,
    ) -> Result<Prepared> {
        let spec = self.check_differentiated(input, saved)?;
        let statistics = self.statistics(Some(saved));
        spec.prepare_double_backward((input, dy), tangents, targets, statistics).await
    }

    /// [`Norm::double_backward`](super::Norm::double_backward).
    pub async fn double_backward(
        self,
        (input, dy): (Input<'_>, &Tensor),
        saved: &Saved,
        tangents: &Tangents<'_>,
    ) -> Result<SecondGradients> {
        together(async {
            let gradients = self.check(input)?.allocate_second(input.x).await?;
            let targets = gradients.targets();
            let backward = self.prepare_double_backward((input, dy), saved, tangents, &targets).await?;
            self.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    /// The layer over an input whose forward pass has saved statistics.
    fn check_differentiated<'s>(self, input: Input<'s>, saved: &Saved) -> Result<Spec<'s>>
    where
        'l: 's,
    {
        let spec = self.check(input)?;
        if spec.segments.is_some() {
            let (what, why) =
                ("derivatives over segments", "only its forward and backward passes are over segments");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        spec.check_alone(input)?;
        self.check_trained(&spec, input.x)?;
        saved.check(self.context, spec.layer, spec.kept(self.kind.scheme()), input.x.dtype())?;
        saved.check_same(self.noted(input))?;
        if self.arrangement(input.x.shape()).is_some() {
            let why = "its slices are such as no walk has; permute x so that its axes lie beside each other";
            return Err(Error::Unsupported { layer: spec.layer, what: "derivatives over these axes", why });
        }
        Ok(spec)
    }

    pub fn statistics<'s>(&self, saved: Option<&'s Saved>) -> Statistics<'s> {
        Statistics::Slices(OfSlices { scheme: self.kind.scheme(), saved })
    }

    /// What forward and backward must have in common.
    fn noted(&self, input: Input<'_>) -> Note {
        Note {
            layer: self.kind.name(),
            activation: self.options.activation,
            residual: input.residual.is_some(),
            gate: input.gate.map(|gate| gate.order),
            masked: input.mask.is_some(),
            renorm: false,
        }
    }

    /// The layer over an input that it takes, with parameters of its own or those of the input.
    pub fn check<'s>(self, input: Input<'s>) -> Result<Spec<'s>>
    where
        'l: 's,
    {
        let x = input.x;
        x.check_device("x", self.context)?;
        let slices = self.slices(input)?;
        let cut = Cut::Slices(slices);
        cut.check_place("x", x)?;
        let (parameters, shape) = self.parameters_of(input)?;
        let spec = Spec {
            context: self.context,
            layer: self.kind.name(),
            cut,
            segments: input.segments,
            has_layout: self.kind.has_layout(),
            eps: self.options.eps.value(x.dtype()),
            activation: self.options.activation,
            parameters,
            shape,
            unit_offset: self.options.unit_offset,
            refuses: match (self.kind.is_of_rows(), self.kind.groups()) {
                (true, 1) => REFUSES_OF_ROWS,
                (true, _) => REFUSES_OF_GROUPS,
                (false, _) => REFUSES,
            },
        };
        spec.check_input(input)?;
        if slices.count() == 0 && slices.statistics() > 0 && slices.segments.is_none() {
            return Err(Error::EmptyBatch { shape: x.shape() });
        }
        Ok(spec)
    }

    /// Requires slices of more than one value for a pass of training, where from one nothing can be learned.
    fn check_trained(&self, spec: &Spec<'_>, x: &Tensor) -> Result<()> {
        let refused = self.kind.refuses_single_values() && !self.options.allow_single_value;
        if refused && spec.cut.slices().count() == 1 {
            return Err(Error::SingleValue { shape: x.shape() });
        }
        Ok(())
    }

    /// gamma and beta, and their shape.
    fn parameters_of<'s>(self, input: Input<'s>) -> Result<(Parameters<'s>, Shape)>
    where
        'l: 's,
    {
        let own = self.kind.parameters();
        let Some(Modulation { gamma, beta }) = input.modulation else {
            return Ok((self.parameters.get(), own.unwrap_or(Shape::per_channel(0))));
        };
        let unsupported = |why| Err(Error::Unsupported { layer: self.kind.name(), what: "modulation", why });
        if self.options.affine != Affine::None {
            return unsupported("it has parameters of its own; make it with Affine::None");
        }
        let Some(own) = own else { return unsupported("it has no parameters") };
        let mut dims = vec![input.x.shape().dims()[0]];
        dims.extend(own.dims());
        let shape = Shape::new(&dims)?;
        let parameters = Parameters { gamma, beta, ..Parameters::default() };
        parameters.check(self.context, shape)?;
        Ok((parameters, shape))
    }
}
