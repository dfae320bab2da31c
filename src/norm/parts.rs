//! What a training and an inference layer share: context, options, parameters, running statistics.

use super::options::BatchNormOptions;
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::parameters::{Owned, Parameters};
use crate::pass::spec::{Cut, Extra, Spec};
use crate::pass::train::next_id;
use crate::statistics::running::RunningStatistics;
use crate::statistics::saved::Saved;

#[derive(Debug)]
pub(crate) struct Parts {
    pub context: Context,
    pub options: BatchNormOptions,
    pub parameters: Owned,
    pub running: RunningStatistics,
    /// Tells layers apart; survives freezing.
    pub id: u64,
}

/// What of an input batch norm has no use for.
pub(super) type Refusals = &'static [(Extra, &'static str)];
const MODULATION: (Extra, &str) =
    (Extra::Modulation, "its parameters are those of the layer; modulate what it gives");
const SUM: (Extra, &str) = (Extra::Sum, "only the norms of the family write the sum that they normalize");
const D_SUM: (Extra, &str) = (Extra::DSum, "only the norms of the family write the sum that they normalize");
const GATE: (Extra, &str) = (Extra::Gate, "only the norms of the family have gates; multiply what it gives");
pub(super) const IN_TRAINING: Refusals = &[MODULATION, SUM, D_SUM, GATE];
/// Where moments are those of several inputs together, or of parts of one.
pub(super) const COMPOSED: Refusals = &[
    MODULATION,
    SUM,
    D_SUM,
    GATE,
    (Extra::Moments, "its statistics are those of all that the call is given"),
];
pub(super) const FROZEN: Refusals =
    &[MODULATION, SUM, D_SUM, GATE, (Extra::Moments, "it normalizes with its running statistics")];

impl Parts {
    pub async fn new(context: &Context, channels: usize, options: BatchNormOptions) -> Result<Self> {
        if channels == 0 {
            return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
        }
        options.check()?;
        // The largest value per channel that a layer keeps, before anything is built on the host.
        context.check_size("running statistics", channels as u64, 12)?;
        let shape = Shape::per_channel(channels as u64);
        let parameters = Owned::affine(context, options.affine, shape, 1.0).await?;
        let running = RunningStatistics::initial(context, channels as u64).await?;
        Self::from_existing(context, options, parameters, running)
    }

    pub fn from_existing(
        context: &Context,
        mut options: BatchNormOptions,
        parameters: Owned,
        running: RunningStatistics,
    ) -> Result<Self> {
        options.affine = parameters.get().affine();
        options.check()?;
        let channels = running.channels();
        running.check(context, channels)?;
        parameters.get().check(context, Shape::per_channel(channels))?;
        Ok(Self { context: context.clone(), options, parameters, running, id: next_id() })
    }

    /// The layer over an input, whose x has its channels and all else fits.
    pub fn check(&self, input: Input<'_>, refuses: Refusals) -> Result<Spec<'_>> {
        let view = input.x.channels()?;
        let (expected, got) = (self.running.channels(), view.channels);
        if got != expected {
            return Err(Error::Channels { what: "x", expected, got });
        }
        let spec = Spec {
            context: &self.context,
            layer: "batch norm",
            cut: Cut::Channels(view),
            segments: None,
            has_layout: true,
            eps: self.options.eps,
            activation: self.options.activation,
            parameters: self.parameters.get(),
            shape: Shape::per_channel(expected),
            unit_offset: false,
            refuses,
        };
        spec.check_input(input)?;
        Ok(spec)
    }

    /// Requires enough values per channel to train with; `shape` is that of x, or of one of several.
    pub fn check_count(&self, count: u64, shape: Shape) -> Result<()> {
        match count {
            0 => Err(Error::EmptyBatch { shape }),
            1 if !self.options.allow_single_value => Err(Error::SingleValue { shape }),
            _ => Ok(()),
        }
    }

    /// Requires what backward needs to recover x̂ from y.
    pub fn check_recoverable(&self, from_y: bool, dtype: DType) -> Result<()> {
        let slope = self.options.activation.least_slope();
        let why = match slope > 0.0 {
            _ if !from_y || slope >= Saved::least_slope(dtype) => return Ok(()),
            true => {
                "the slope is below Saved::least_slope, so x̂ cannot be recovered from y; keep x and use Saved::new"
            }
            false => {
                "the activation cannot be inverted, so x̂ cannot be recovered from y; keep x and use Saved::new"
            }
        };
        Err(Error::InPlace { why })
    }

    /// Requires that what is saved fits to where y is written.
    pub fn check_saved_in_place(&self, over_x: bool, saved: Option<&Saved>, dtype: DType) -> Result<()> {
        let why = match (over_x, saved.map(Saved::is_in_place)) {
            (true, Some(false)) => "y is written over x, which backward needs; use Saved::in_place",
            (false, Some(true)) => "Saved::in_place is for a y that is written over x; use Saved::new",
            (true, Some(true)) => return self.check_recoverable(true, dtype),
            _ => return Ok(()),
        };
        Err(Error::InPlace { why })
    }

    /// Whether backward reads the residual, to compute the derivative of the activation or recover x̂.
    pub fn reads_residual(&self, from_y: bool) -> bool {
        self.options.activation != Activation::None || from_y
    }

    pub fn parameters(&self) -> Parameters<'_> {
        self.parameters.get()
    }
}

/// gamma and beta that exist already.
pub(super) fn affine(gamma: Option<Tensor>, beta: Option<Tensor>) -> Owned {
    Owned { gamma, beta, ..Owned::default() }
}
