//! The layers of the family, which differ in their slices and in nothing else.

use super::axes::Arrangement;
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
use crate::pass::{Affine, GradientTargets, Gradients, OfSlices, Pass, Reads, Scheme, Spec, Statistics};
use crate::plan::{Op, Slices};
use crate::statistics::saved::{Kept, Note, Saved};

/// What makes a norm the one that it is: its slices.
pub trait Kind: sealed::Sealed {}

pub(crate) mod sealed {
    use super::*;

    /// What a kind of norm decides.
    pub trait Sealed: std::fmt::Debug {
        /// The layer's name, for errors.
        fn name(&self) -> &'static str;

        /// What x is divided by.
        fn scheme(&self) -> Scheme;

        /// The slices of x, with parameters of the layer's own or, if it is modulated, of each sample.
        fn slices(&self, x: &Tensor, modulated: bool) -> Result<Slices>;

        /// The shape of gamma and beta, if there can be any.
        fn parameters(&self) -> Option<Shape>;

        /// What gamma begins with.
        fn initial_gamma(&self) -> f32 {
            1.0
        }

        /// Whether training refuses one value per slice unless it is asked for.
        fn refuses_single_values(&self) -> bool {
            false
        }

        /// Whether its slices are rows of x, positions with all of their values, of which a mask leaves some out.
        fn is_of_rows(&self) -> bool {
            false
        }

        /// How x and the parameters are put into another order for a layer whose walk is known, where they must be.
        fn arrangement(&self, _x: Shape) -> Option<Arrangement<Self>>
        where
            Self: Sized,
        {
            None
        }

        /// Groups of a row that have statistics of their own.
        fn groups(&self) -> u64 {
            1
        }

        /// Whether the order of axes in memory matters.
        fn has_layout(&self) -> bool {
            true
        }
    }
}

/// A norm whose slices are not the channels of a batch: [`LayerNorm`](crate::LayerNorm), [`RmsNorm`](crate::RmsNorm),
/// [`GroupNorm`](crate::GroupNorm), [`InstanceNorm`](crate::InstanceNorm) and their kin, which differ in their [`Kind`].
///
/// ```text
/// x̂ = (x − mean) / sqrt(var + eps)          over each slice (biased variance)
/// y = act(x̂·gamma + beta + residual)
/// ```
///
/// There are no running statistics, so training and inference are one: a forward pass that is to be followed by a backward pass saves the statistics
/// of its slices in a [`Saved`]; [`infer`](Self::infer) saves nothing.
///
/// Tensors must lie in one buffer, without gaps, but that rows (slices that are one run: those of layer and RMS norm) may be equally far apart: a part of the last axis of
/// a wider tensor, for example, as queries are of packed queries, keys and values. Values may be f32, f16 or bf16; gamma and beta f32 or of the type of x.
#[derive(Debug)]
pub struct Norm<K> {
    pub(super) context: Context,
    pub(super) kind: K,
    pub(super) options: NormOptions,
    pub(super) parameters: Owned,
}

/// What of an input a norm of the family has no use for.
const REFUSES: &[(Extra, &str)] =
    &[(Extra::Mask, "its slices are not the rows of x; pad x where it is to have no effect"), MOMENTS];
const REFUSES_OF_ROWS: &[(Extra, &str)] = &[MOMENTS];
const REFUSES_OF_GROUPS: &[(Extra, &str)] = &[(Extra::Mask, "its rows are in groups"), MOMENTS];
const MOMENTS: (Extra, &str) = (Extra::Moments, "its statistics are those of each of its slices");

impl<K: Kind> Norm<K> {
    /// A layer whose gamma is neutral and whose beta is 0.
    pub(super) async fn initial(context: &Context, kind: K, options: NormOptions) -> Result<Self> {
        options.check()?;
        let gamma = if options.unit_offset { 0.0 } else { kind.initial_gamma() };
        let parameters = match kind.parameters() {
            Some(shape) => Owned::affine(context, options.affine, shape, gamma).await?,
            None => Owned::default(),
        };
        Self::with(context, kind, options, parameters)
    }

    pub(super) fn existing(
        context: &Context,
        kind: K,
        options: NormOptions,
        gamma: Option<Tensor>,
        beta: Option<Tensor>,
    ) -> Result<Self> {
        Self::with(context, kind, options, Owned { gamma, beta, ..Owned::default() })
    }

    pub(super) fn with(
        context: &Context,
        kind: K,
        mut options: NormOptions,
        parameters: Owned,
    ) -> Result<Self> {
        options.check()?;
        let given = parameters.get();
        options.affine = given.affine();
        match kind.parameters() {
            Some(shape) => given.check(context, shape)?,
            None if options.affine != Affine::None => {
                let what = if options.affine.has_gamma() { "gamma" } else { "beta" };
                let (layer, why) = (kind.name(), "it has no parameters");
                return Err(Error::Unsupported { layer, what, why });
            }
            None => {}
        }
        Ok(Self { context: context.clone(), kind, options, parameters })
    }

    /// gamma, if the layer has one.
    pub fn gamma(&self) -> Option<&Tensor> {
        self.parameters.gamma.as_ref()
    }

    /// beta, if the layer has one.
    pub fn beta(&self) -> Option<&Tensor> {
        self.parameters.beta.as_ref()
    }

    /// What the layer was made with.
    pub fn options(&self) -> &NormOptions {
        &self.options
    }

    /// Room for the statistics of a tensor like x.
    ///
    /// # Errors
    /// Those of a forward pass of x, and of an allocation.
    pub async fn room_for(&self, x: &Tensor) -> Result<Saved> {
        Saved::empty(&self.context, self.kept(x)?, x.dtype()).await
    }

    /// As [`room_for`](Self::room_for), in a tensor of the caller's, `[S, 4]` of f32 for S statistics, a row for each in the order of the slices: the two parts
    /// of the mean (their sum is the mean), 1 / sqrt(var + eps), the biased variance. Of norms that subtract no mean: a power of two and 0, what x times that power
    /// of two is multiplied with, the root of the mean square. What it holds before forward has run, it holds.
    ///
    /// The tensor must begin at a multiple of the device's `min_storage_buffer_offset_alignment` (at most 256 bytes) of its buffer.
    ///
    /// # Errors
    /// Those of a forward pass of x; [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`], [`Error::Misaligned`].
    pub fn room_in(&self, x: &Tensor, tensor: &Tensor) -> Result<Saved> {
        Saved::in_tensor(&self.context, tensor, self.kept(x)?, x.dtype())
    }

    fn kept(&self, x: &Tensor) -> Result<Kept> {
        Ok(Cut::Slices(self.kind.slices(x, false)?).kept(self.kind.scheme()))
    }

    /// Prepares y; `saved`, from [`room_for`](Self::room_for), receives what the backward pass needs, without it there is none.
    ///
    /// Moves 3 tensors (x twice, y once), and the residual if there is one; where the plan holds slices in registers
    /// ([`Plan::held`](crate::tuning::Plan::held)), 2. Of a sum ([`Input::plus`]) 5 (x, the addend and y once, the sum twice), or 4. y may be the tensor x itself if
    /// nothing is saved. An empty x gives an empty y.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`], [`Error::Channels`], [`Error::DType`], [`Error::Layout`], [`Error::NotContiguous`],
    /// [`Error::SingleValue`] if statistics are saved, [`Error::EmptyBatch`] for slices without values, [`Error::Unsupported`] for a mask where slices are no rows, or modulation where it cannot be,
    /// [`Error::InPlace`], and what binding the tensors can raise. Nothing changes on an error.
    pub async fn prepare_forward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<Prepared> {
        let input = input.into();
        let (spec, x) = (self.check(input)?, input.x);
        if input.d_sum.is_some() {
            let (what, why) = ("d_sum", "it is a gradient; give it to the backward pass");
            return Err(Error::Unsupported { layer: spec.layer, what, why });
        }
        spec.check_like("y", y, x)?;
        if let Some(saved) = saved {
            self.check_trained(&spec, x)?;
            saved.check(&self.context, spec.layer, spec.cut.kept(self.kind.scheme()), x.dtype())?;
            if y.is_same_place(x) && input.sum.is_none() {
                let why = "y is written over x, which backward needs; save nothing, or keep x";
                return Err(Error::InPlace { why });
            }
        }
        if spec.cut.is_empty() {
            return Ok(Prepared::nothing(&self.context, Op::TrainForward));
        }
        if let Some(arrangement) = self.arrangement(x.shape())? {
            return self.prepare_arranged_forward(arrangement, input, y, saved).await;
        }
        let statistics = self.statistics(saved);
        let prepared = Pass::forward(Op::TrainForward, spec, input, y, statistics).prepare().await?;
        if let Some(saved) = saved {
            saved.note(self.noted(input));
        }
        Ok(prepared)
    }

    /// y, and what the backward pass needs. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn forward<'a>(&self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        together(async {
            let input = input.into();
            let spec = self.check(input)?;
            self.check_trained(&spec, input.x)?;
            let kept = spec.cut.kept(self.kind.scheme());
            let saved = Saved::unwritten(&self.context, kept, input.x.dtype()).await?;
            let y = self.context.zeros_like(input.x).await?;
            let forward = self.prepare_forward(input, &y, Some(&saved)).await?;
            self.context.submit(&[&forward]).await?;
            Ok((y, saved))
        })
        .await
    }

    /// y alone. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_forward`](Self::prepare_forward).
    pub async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.check(input)?;
            let y = self.context.zeros_like(input.x).await?;
            let forward = self.prepare_forward(input, &y, None).await?;
            self.context.submit(&[&forward]).await?;
            Ok(y)
        })
        .await
    }

    /// Prepares the gradients, as many as are asked for.
    ///
    /// ```text
    /// dz = dy·act'(z), z = x̂·gamma + beta + residual        d_residual = dz
    /// dbeta = Σ dz        dgamma = Σ dz·x̂
    /// dx = (gamma·dz − mean(gamma·dz) − x̂·mean(gamma·dz·x̂)) / sqrt(var + eps)        means over each slice
    /// ```
    ///
    /// x and the residual must be what forward saw, and gamma and beta still those that it used. Moves 5 tensors (x and dy twice, dx once), or
    /// 2 without dx; with an activation and a residual 3 more. dx may be the tensor dy itself.
    ///
    /// With a gate ([`Input::gated`]) behind the norm dz = dy·act(gate) and d_gate = dy·z·act'(gate); before it, with u = x·act(gate) in the place of x,
    /// dx = du·act(gate) and d_gate = du·x·act'(gate).
    ///
    /// After a forward pass of a sum, x is the sum, and [`Input::with_d_sum`] gives the gradient that it has from elsewhere.
    ///
    /// # Errors
    /// [`Error::NoGradient`], [`Error::NoParameter`], [`Error::Number`], [`Error::Residual`], [`Error::Gate`], [`Error::Activation`],
    /// [`Error::Unsupported`] for d_gate without dx where the gate is before the norm, and those of
    /// [`prepare_forward`](Self::prepare_forward).
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let input = input.into();
        let spec = self.check(input)?;
        self.check_trained(&spec, input.x)?;
        targets.check_any()?;
        spec.check_targets(input, dy, targets)?;
        saved.check(&self.context, spec.layer, spec.cut.kept(self.kind.scheme()), input.x.dtype())?;
        saved.check_same(self.noted(input))?;
        if spec.cut.is_empty() {
            return spec.prepare_empty_sums(Op::TrainBackward, input.x.dtype(), targets).await;
        }
        if let Some(arrangement) = self.arrangement(input.x.shape())? {
            return self.prepare_arranged_backward(arrangement, input, dy, saved, targets).await;
        }
        // Without an activation dz is dy, whatever the residual is.
        let residual = self.options.activation != Activation::None;
        let reads = Reads { x: true, residual, parameters: true };
        let statistics = self.statistics(Some(saved));
        Pass::backward(Op::TrainBackward, spec, (input, dy), targets, reads, statistics).prepare().await
    }

    /// All gradients that the layer has. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, saved, &gradients.computed(dy)).await?;
            self.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }

    pub(super) fn statistics<'s>(&self, saved: Option<&'s Saved>) -> Statistics<'s> {
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
    pub(super) fn check<'s>(&'s self, input: Input<'s>) -> Result<Spec<'s>> {
        let x = input.x;
        x.check_device("x", &self.context)?;
        let slices = self.kind.slices(x, input.modulation.is_some())?;
        let cut = Cut::Slices(slices);
        cut.check_place("x", x)?;
        let (parameters, shape) = self.parameters_of(input)?;
        let spec = Spec {
            context: &self.context,
            layer: self.kind.name(),
            cut,
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
        if slices.count() == 0 && slices.statistics() > 0 {
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
    fn parameters_of<'s>(&'s self, input: Input<'s>) -> Result<(Parameters<'s>, Shape)> {
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
        parameters.check(&self.context, shape)?;
        Ok((parameters, shape))
    }
}
