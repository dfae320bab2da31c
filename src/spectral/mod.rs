//! Spectral norm: a weight divided by its greatest singular value, which a power iteration follows while the weight is trained.
//!
//! Source: Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018.

mod options;

pub use self::options::{PowerOrder, SpectralNormOptions};
use crate::base::activation::Activation;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::slab::Slab;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::input::Input;
use crate::pass::parameters::Parameters;
use crate::pass::spec::{Cut, Extra};
use crate::pass::spectral::{Directions, Matrix, Step};
use crate::pass::train::{next_id, sealed};
use crate::pass::{GradientTargets, Gradients, Infer, Spec, Train, TrainForward, infer};
use crate::plan::{SLICE_BYTES, Slices};
use crate::statistics::saved::{Kept, Note, Saved};

/// Spectral norm of a weight in training: `y = W / σ`, σ = uᵀ·W·v the greatest singular value of W as a matrix, whose rows are those of
/// one of its axes, as far as u and v are its singular vectors. Each forward pass takes a step of the power iteration:
///
/// ```text
/// v = Wᵀ·u / ‖Wᵀ·u‖        u = W·v / ‖W·v‖        σ = uᵀ·W·v
/// dW = (G − Σ G∘y · u·vᵀ) / σ        u and v are constants
/// ```
///
/// u, of as many values as W has rows, and v, of as many as it has columns, are kept on the GPU in f32, whatever the type of W. W is read twice for a step and once more for y; with one step a forward pass
/// moves 4 tensors, a backward pass 4. W is a weight of any rank from 2 to 5, of any type, in one buffer without gaps; where its rows are along another axis than the first
/// ([`SpectralNormOptions::axis`]) it is walked as it lies.
///
/// ```
/// use wgnorm::spectral::{SpectralNorm, SpectralNormOptions};
/// use wgnorm::Context;
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     // Singular values 3 and 1.
///     let w = context.upload(&[2, 2], &[3.0, 0.0, 0.0, 1.0]).await?;
///     let mut layer = SpectralNorm::new(&context, &[2, 2], SpectralNormOptions::hook().iterations(20), 7).await?;
///     let (y, saved) = layer.train_forward(&w).await?;
///     assert!((context.download(&y).await?[0] - 1.0).abs() < 1e-5);
///     assert!((layer.sigma(&saved).await? - 3.0).abs() < 1e-4);
///
///     // Of the part along u·vᵀ nothing is left: y does not change with the length of W.
///     let g = context.upload(&[2, 2], &[1.0, 0.0, 0.0, 6.0]).await?;
///     let dw = context.download(&layer.backward(&w, &g, &saved).await?.dx).await?;
///     assert!((dw[0] + 2.0 / 3.0).abs() < 1e-4 && (dw[3] - 2.0).abs() < 1e-4);
///     // For inference and for files: the weight as it is used.
///     let folded = layer.freeze().fold(&w).await?;
///     assert!((context.download(&folded).await?[3] - 1.0 / 3.0).abs() < 1e-5);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Debug)]
pub struct SpectralNorm {
    parts: Parts,
}

/// Spectral norm with u and v as they are: for inference, and to be folded into the weight.
///
/// ```compile_fail,E0599
/// # async fn train(context: &wgnorm::Context, w: &wgnorm::Tensor) -> wgnorm::Result<()> {
/// use wgnorm::spectral::{SpectralNorm, SpectralNormOptions};
/// let mut layer = SpectralNorm::new(context, &[8, 8], SpectralNormOptions::hook(), 0).await?.freeze();
/// layer.train_forward(w).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FrozenSpectralNorm {
    parts: Parts,
}

#[derive(Debug)]
struct Parts {
    context: Context,
    shape: Shape,
    options: SpectralNormOptions,
    matrix: Matrix,
    /// u, then v.
    state: Slab,
    u: Tensor,
    v: Tensor,
    /// What tells layers apart.
    id: u64,
}

const LAYER: &str = "spectral norm";
const REFUSES: &[(Extra, &str)] = &[
    (Extra::Gate, "its input is a weight"),
    (Extra::Mask, "its input is a weight"),
    (Extra::Modulation, "it has no parameters"),
    (Extra::Sum, "its input is a weight"),
    (Extra::DSum, "its input is a weight"),
    (Extra::Moments, "it has no moments"),
];

impl Parts {
    async fn new(
        context: &Context,
        dims: &[usize],
        options: SpectralNormOptions,
        directions: &[f32],
    ) -> Result<Self> {
        options.check()?;
        let shape = Shape::new(dims)?;
        if shape.rank() < 2 {
            return Err(Error::Rank { what: "a weight", expected: "2 to 5", got: shape.rank() });
        }
        let axes: Vec<usize> = (0..shape.rank()).filter(|&axis| axis != options.axis).collect();
        let rows = Slices::over_axes(shape, &axes)?;
        let columns = Slices::over_axes(shape, &[options.axis])?;
        let (Some(rows), Some(columns)) = (rows, columns) else {
            unreachable!("one axis is walked whatever the others are")
        };
        if shape.len() == 0 {
            return Err(Error::EmptyBatch { shape });
        }
        let matrix =
            Matrix { rows: rows.with_parameters_within(), columns: columns.with_parameters_within() };
        let (rows, columns) = (matrix.rows.slices(), matrix.columns.slices());
        if directions.len() as u64 != rows + columns {
            let (expected, got) = ((rows + columns) as usize, directions.len());
            return Err(Error::Number { what: "values of u and v", expected, got });
        }
        let state = context.upload(&[directions.len()], directions).await?;
        let (u, v) = (state.stretch(0..rows)?, state.stretch(rows..rows + columns)?);
        let slab = Slab::of_tensor(context, "u and v", &state, &[rows + columns])?;
        Ok(Self { context: context.clone(), shape, options, matrix, state: slab, u, v, id: next_id() })
    }

    fn kept(&self) -> Kept {
        let (rows, columns) = (self.matrix.rows.slices(), self.matrix.columns.slices());
        Kept::Directions { rows, columns }
    }

    /// The layer over a weight that fits.
    fn check<'s>(&'s self, input: Input<'s>) -> Result<Spec<'s>> {
        let (w, context) = (input.x, &self.context);
        w.check_device("a weight", context)?;
        w.check_shape("a weight", self.shape)?;
        w.check_contiguous("a weight")?;
        let spec = Spec {
            context,
            layer: LAYER,
            cut: Cut::Slices(self.matrix.rows),
            segments: None,
            has_layout: false,
            eps: self.options.eps,
            activation: Activation::None,
            parameters: Parameters::default(),
            shape: Shape::per_channel(0),
            unit_offset: false,
            refuses: REFUSES,
        };
        if input.residual.is_some() {
            let why = "its input is a weight";
            return Err(Error::Unsupported { layer: LAYER, what: "residual", why });
        }
        spec.check_input(input)?;
        Ok(spec)
    }

    fn check_like(&self, what: &'static str, tensor: &Tensor, w: &Tensor) -> Result<()> {
        tensor.check_device(what, &self.context)?;
        tensor.check_shape(what, self.shape)?;
        tensor.check_dtype(what, w.dtype())?;
        tensor.check_contiguous(what)
    }

    async fn prepare(
        &self,
        input: Input<'_>,
        y: &Tensor,
        saved: Option<&Saved>,
        iterations: u32,
    ) -> Result<Prepared> {
        let (spec, w) = (self.check(input)?, input.x);
        self.check_like("y", y, w)?;
        if let Some(saved) = saved {
            saved.check(&self.context, LAYER, self.kept(), w.dtype())?;
            if y.is_same_place(w) {
                let why =
                    "y is written over the weight, which backward needs; save nothing, or keep the weight";
                return Err(Error::InPlace { why });
            }
        }
        let steps = match (iterations, self.options.order) {
            (0, _) => vec![Step::Given],
            (steps, PowerOrder::VFirst) => [Step::Columns, Step::Rows].repeat(steps as usize),
            (steps, PowerOrder::UFirst) => [Step::Rows, Step::Columns].repeat(steps as usize),
        };
        let Self { state, u, v, matrix, .. } = self;
        let directions = Directions { state, u, v, saved: saved.map(Saved::slab) };
        let prepared = spec.prepare_spectral(*matrix, (w, y), &steps, directions).await?;
        if let Some(saved) = saved {
            saved.note(NOTE);
        }
        Ok(prepared)
    }

    async fn prepare_backward(
        &self,
        (input, dy): (Input<'_>, &Tensor),
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let (spec, w) = (self.check(input)?, input.x);
        targets.check_any()?;
        spec.check_parameter_targets(w.dtype(), targets)?;
        let Some(dw) = targets.dx.filter(|_| targets.d_residual.is_none() && targets.d_gate.is_none()) else {
            let why = "the gradient of the weight, dx, is the only one that there is";
            return Err(Error::Unsupported { layer: LAYER, what: "another gradient", why });
        };
        self.check_like("dy", dy, w)?;
        self.check_like("dx", dw, w)?;
        saved.check(&self.context, LAYER, self.kept(), w.dtype())?;
        saved.check_same(NOTE)?;
        spec.prepare_spectral_backward(self.matrix, (w, dy, dw), saved.slab()).await
    }

    /// The vectors, as they are now.
    async fn directions(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((self.context.download(&self.u).await?, self.context.download(&self.v).await?))
    }
}

const NOTE: Note = Note {
    layer: LAYER,
    activation: Activation::None,
    residual: false,
    gate: None,
    masked: false,
    renorm: false,
};

/// Unit vectors of a seed: of splitmix64's bits, by sums of twelve uniform numbers, which are normal enough to be in every direction.
fn unit_vector(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let values: Vec<f64> = (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0).collect();
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| (value / length) as f32).collect()
}

impl SpectralNorm {
    /// A layer for weights of a shape, with u and v in random directions that a seed tells. PyTorch's parametrization begins with 15 steps ([`set_iterations`](Self::set_iterations)).
    ///
    /// # Errors
    /// [`Error::Rank`]; [`Error::Axes`] for an axis that there is not; [`Error::EmptyBatch`] for a weight of no values; [`Error::Epsilon`]; [`Error::TooLarge`] for more than 1024 steps; those of an upload.
    pub async fn new(
        context: &Context,
        shape: &[usize],
        options: SpectralNormOptions,
        seed: u64,
    ) -> Result<Self> {
        let rows = shape.get(options.axis).copied().unwrap_or(0);
        let columns = Shape::new(shape)?.len().checked_div(rows as u64).unwrap_or(0) as usize;
        let (u, v) = (unit_vector(seed, rows), unit_vector(!seed, columns));
        Self::from_directions(context, shape, options, &u, &v).await
    }

    /// A layer with given u, a value for each row, and v, a value for each column: of a weight whose rows are put first, in the order in which it then lies.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Number`] for vectors of other lengths.
    pub async fn from_directions(
        context: &Context,
        shape: &[usize],
        options: SpectralNormOptions,
        u: &[f32],
        v: &[f32],
    ) -> Result<Self> {
        let rows = shape.get(options.axis).copied().unwrap_or(0);
        if rows != 0 && u.len() != rows {
            return Err(Error::Number { what: "values of u", expected: rows, got: u.len() });
        }
        Ok(Self { parts: Parts::new(context, shape, options, &[u, v].concat()).await? })
    }

    /// Prepares y = W / σ, after as many steps of the power iteration as the options say: u and v change whenever it is recorded. `saved`, from `room_for`, receives what
    /// the backward pass needs. y may be the weight itself if nothing is saved.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::NotContiguous`], [`Error::ForeignDevice`], [`Error::InPlace`], [`Error::Unsupported`] for what an input has besides the weight, and what binding the
    /// tensors can raise.
    pub async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        let iterations = self.parts.options.iterations;
        let prepared = self.parts.prepare(input.into(), y, saved, iterations).await?;
        Ok(TrainForward::of(self.parts.id, prepared))
    }

    /// y, and what the backward pass needs. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn train_forward<'a>(&mut self, input: impl Into<Input<'a>>) -> Result<(Tensor, Saved)> {
        Train::train_forward(self, input).await
    }

    /// Prepares the gradient of the weight from that of y, with u and v as the forward pass used them. dx may be the tensor dy itself.
    ///
    /// # Errors
    /// Those of [`prepare_train_forward`](Self::prepare_train_forward); [`Error::NoGradient`], [`Error::NoParameter`], [`Error::Unsupported`] for other gradients.
    pub async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        self.parts.prepare_backward((input.into(), dy), saved, targets).await
    }

    /// The gradient of the weight, as dx. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_backward`](Self::prepare_backward).
    pub async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        Train::backward(self, input, dy, saved).await
    }

    /// σ of a forward pass.
    ///
    /// # Errors
    /// Those of a read-back; [`Error::Unsupported`] for what another layer has saved.
    pub async fn sigma(&self, saved: &Saved) -> Result<f32> {
        saved.check(&self.parts.context, LAYER, self.parts.kept(), saved.dtype())?;
        let bytes = saved.slab().read(&self.parts.context, "saved statistics", SLICE_BYTES).await?;
        Ok(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)[3])
    }

    /// u and v as they are now.
    ///
    /// # Errors
    /// Those of a read-back.
    pub async fn directions(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        self.parts.directions().await
    }

    /// A tensor in the memory of u and v, which lie one behind the other.
    pub(crate) fn memory(&self) -> &Tensor {
        &self.parts.u
    }

    /// Replaces u and v, after everything that was submitted before and before everything that is submitted later.
    ///
    /// # Errors
    /// [`Error::Number`] for vectors of other lengths; those of an upload.
    pub async fn set_directions(&mut self, u: &[f32], v: &[f32]) -> Result<()> {
        let Parts { context, matrix, state, .. } = &self.parts;
        for (what, slices, got) in
            [("values of u", matrix.rows, u.len()), ("values of v", matrix.columns, v.len())]
        {
            let expected = slices.slices() as usize;
            if got != expected {
                return Err(Error::Number { what, expected, got });
            }
        }
        state.write(context, "u and v", bytemuck::cast_slice(&[u, v].concat())).await
    }

    /// Sets how many steps forward passes take that are prepared later: PyTorch's parametrization takes 15 in the first, and one in each that follows.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more than 1024.
    pub fn set_iterations(&mut self, iterations: u32) -> Result<()> {
        let options = self.parts.options.iterations(iterations);
        options.check()?;
        self.parts.options = options;
        Ok(())
    }

    /// What the layer was made with.
    pub fn options(&self) -> &SpectralNormOptions {
        &self.parts.options
    }

    /// Turns the layer into one whose u and v stay.
    pub fn freeze(self) -> FrozenSpectralNorm {
        FrozenSpectralNorm { parts: self.parts }
    }
}

impl FrozenSpectralNorm {
    /// Prepares y = W / σ, with u and v as they are: W is read once for σ. y may be the weight itself.
    ///
    /// # Errors
    /// As [`SpectralNorm::prepare_train_forward`].
    pub async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        self.parts.prepare(input.into(), y, None, 0).await
    }

    /// W / σ in a tensor of its own, the weight to be stored and used without a norm. Submitted at once.
    ///
    /// # Errors
    /// As [`prepare_infer`](Self::prepare_infer).
    pub async fn fold(&self, w: &Tensor) -> Result<Tensor> {
        Infer::infer(self, w).await
    }

    /// u and v.
    ///
    /// # Errors
    /// Those of a read-back.
    pub async fn directions(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        self.parts.directions().await
    }

    /// Turns the layer into one in training.
    pub fn unfreeze(self) -> SpectralNorm {
        SpectralNorm { parts: self.parts }
    }
}

impl sealed::Sealed for SpectralNorm {
    fn context(&self) -> &Context {
        &self.parts.context
    }

    fn id(&self) -> Option<u64> {
        Some(self.parts.id)
    }
}

impl Train for SpectralNorm {
    async fn room_for<'a>(&self, input: impl Into<Input<'a>>) -> Result<Saved> {
        let x = input.into().x;
        self.parts.check(x.into())?;
        Saved::empty(&self.parts.context, self.parts.kept(), x.dtype()).await
    }

    async fn prepare_train_forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        y: &Tensor,
        saved: Option<&Saved>,
    ) -> Result<TrainForward> {
        SpectralNorm::prepare_train_forward(self, input, y, saved).await
    }

    async fn prepare_backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        SpectralNorm::prepare_backward(self, input, dy, saved, targets).await
    }

    async fn backward<'a>(
        &self,
        input: impl Into<Input<'a>>,
        dy: &Tensor,
        saved: &Saved,
    ) -> Result<Gradients> {
        together(async {
            let input = input.into();
            let gradients = self.parts.check(input)?.allocate(input, dy).await?;
            let backward = self.prepare_backward(input, dy, saved, &gradients.targets()).await?;
            self.parts.context.submit(&[&backward]).await?;
            Ok(gradients)
        })
        .await
    }
}

impl infer::sealed::Sealed for FrozenSpectralNorm {}

impl Infer for FrozenSpectralNorm {
    async fn prepare_infer<'a>(&self, input: impl Into<Input<'a>>, y: &Tensor) -> Result<Prepared> {
        FrozenSpectralNorm::prepare_infer(self, input, y).await
    }

    async fn infer<'a>(&self, input: impl Into<Input<'a>>) -> Result<Tensor> {
        together(async {
            let input = input.into();
            self.parts.check(input)?;
            let y = self.parts.context.zeros_like(input.x).await?;
            let inference = self.prepare_infer(input, &y).await?;
            self.parts.context.submit(&[&inference]).await?;
            Ok(y)
        })
        .await
    }
}
