//! A trial of a driver that is not trusted: known passes, before the first that somebody asks for.
//!
//! OpenGL's drivers compile what naga writes for them to results that are wrong without any error: sums that are 0, NaN that a maximum with 0 takes for 0. On Vulkan,
//! Metal, DX12 and in browsers none was seen.

use super::input::Input;
use super::parameters::Parameters;
use super::spec::{Cut, Spec};
use super::targets::GradientTargets;
use super::{OfBatch, Pass, Reads, Statistics, Sums};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::{Channels, Layout, Shape};
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::plan::Op;
use crate::statistics::saved::{Kept, Saved};

const EPS: f64 = 1e-3;

/// What results are off by at most, whose values are about 1.
const TOLERANCE: f64 = 1e-4;

/// Channels that are runs of several samples, and columns of more rows than a team has invocations.
const SHAPES: [([usize; 3], Layout); 2] =
    [([4, 3, 37], Layout::ChannelsFirst), ([300, 5, 1], Layout::ChannelsLast)];

impl Context {
    /// Runs a reduction, a map and their gradients with known results on the device, and a NaN through a ReLU: whether its driver compiles kernels to what they
    /// say. Where drivers are known not to (OpenGL), the first operation that is prepared asks for it by itself. What was found is kept.
    ///
    /// # Errors
    /// [`Error::Driver`], with what was seen; those of an allocation and of compiling.
    ///
    /// ```
    /// let context = wgnorm::Context::headless_blocking()?;
    /// context.block_on(context.try_driver())?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub async fn try_driver(&self) -> Result<()> {
        if !self.runs() {
            return Err(Error::NoDevice);
        }
        let known = &self.probes().trial;
        if known.get().is_none() {
            let seen = Box::pin(seen(self)).await?;
            known.get_or_init(|| seen);
        }
        match known.get() {
            Some(Some(seen)) => Err(Error::Driver { seen: seen.clone() }),
            _ => Ok(()),
        }
    }

    /// The same, if the driver is not trusted.
    pub(crate) async fn try_untrusted_driver(&self) -> Result<()> {
        if self.runs() && self.probes().distrusts { self.try_driver().await } else { Ok(()) }
    }
}

/// The first wrong result, if there is one.
async fn seen(context: &Context) -> Result<Option<String>> {
    for (dims, layout) in SHAPES {
        let problem = Problem::new(dims, layout);
        for (activation, what) in [(Activation::None, "a norm"), (Activation::Relu, "a norm and a ReLU")] {
            let wrong = problem.run(context, activation).await?;
            if let Some(wrong) = wrong {
                return Ok(Some(format!("{what} of {:?}: {wrong}", Shape::new(&dims)?)));
            }
        }
    }
    Ok(None)
}

/// Batch norm over a small tensor, whose last channel has a NaN.
struct Problem {
    view: Channels,
    dims: [usize; 3],
    x: Vec<f32>,
    dy: Vec<f32>,
}

impl Problem {
    fn new([samples, channels, inner]: [usize; 3], layout: Layout) -> Self {
        let view =
            Channels { samples: samples as u64, channels: channels as u64, inner: inner as u64, layout };
        let dims = if layout == Layout::ChannelsFirst {
            [samples, channels, inner]
        } else {
            [samples, inner, channels]
        };
        let some = |step: u64| (0..view.elements()).map(move |i| (i * step % 23) as f32 / 4.0 - 2.0);
        let mut x: Vec<f32> = some(37).collect();
        let last = (0..view.elements()).find(|&i| view.channel_of(i) == view.channels - 1);
        x[last.unwrap_or(0) as usize] = f32::NAN;
        Self { view, dims, x, dy: some(71).collect() }
    }

    /// y and, without an activation, dx.
    fn expected(&self, activation: Activation) -> (Vec<f64>, Vec<f64>) {
        let count = self.view.count() as f64;
        let mut of_channels = vec![[0.0; 4]; self.view.channels as usize];
        let channel = |i: usize| self.view.channel_of(i as u64) as usize;
        let each = || self.x.iter().zip(&self.dy).map(|(x, dy)| (f64::from(*x), f64::from(*dy))).enumerate();
        for (i, (x, _)) in each() {
            of_channels[channel(i)][0] += x / count;
        }
        for (i, (x, _)) in each() {
            let [mean, var, ..] = &mut of_channels[channel(i)];
            *var += (x - *mean).powi(2) / count;
        }
        let xhat = |x: f64, of: &[f64; 4]| (x - of[0]) / (of[1] + EPS).sqrt();
        for (i, (x, dy)) in each() {
            let of = &mut of_channels[channel(i)];
            let xhat = xhat(x, of);
            of[2] += dy / count;
            of[3] += dy * xhat / count;
        }
        let y = each().map(|(i, (x, _))| xhat(x, &of_channels[channel(i)]));
        // Not by a maximum, which would take 0 for NaN.
        let relu = |y: f64| if y < 0.0 && activation == Activation::Relu { 0.0 } else { y };
        let dx = each().map(|(i, (x, dy))| {
            let of = &of_channels[channel(i)];
            (dy - of[2] - xhat(x, of) * of[3]) / (of[1] + EPS).sqrt()
        });
        (y.map(relu).collect(), dx.collect())
    }

    /// The first wrong result.
    async fn run(&self, context: &Context, activation: Activation) -> Result<Option<String>> {
        let put = async |values: &[f32]| -> Result<Tensor> {
            Ok(context.upload(&self.dims, values).await?.with_layout(self.view.layout))
        };
        let (x, dy) = (put(&self.x).await?, put(&self.dy).await?);
        let (y, dx) = (context.zeros_like(&x).await?, context.zeros_like(&x).await?);
        let spec = Spec {
            context,
            layer: "a trial",
            cut: Cut::Channels(self.view),
            segments: None,
            has_layout: true,
            eps: EPS,
            activation,
            parameters: Parameters::default(),
            shape: Shape::per_channel(self.view.channels),
            unit_offset: false,
            refuses: &[],
        };
        let kept = Kept::Channels { channels: self.view.channels, count: self.view.count() };
        let saved = Saved::unwritten(context, kept, DType::F32).await?;
        let of = OfBatch {
            moments: None,
            saved: Some(&saved),
            running: None,
            track: None,
            renorm: None,
            sums: Sums::Own,
        };
        let statistics = Statistics::Batch(of);
        let forward = Pass::forward(Op::TrainForward, spec, Input::from(&x), &y, statistics);
        let mut operations = vec![forward.assemble().await?];
        let backward = activation == Activation::None;
        if backward {
            let targets = GradientTargets::default().dx(&dx);
            let reads = Reads { x: true, residual: false, parameters: false };
            let pass =
                Pass::backward(Op::TrainBackward, spec, (Input::from(&x), &dy), &targets, reads, statistics);
            operations.push(pass.assemble().await?);
        }
        context.submit(&operations.iter().collect::<Vec<_>>()).await?;
        let (expected_y, expected_dx) = self.expected(activation);
        let mut wrong = wrong("y", &context.download(&y).await?, &expected_y);
        if wrong.is_none() && backward {
            wrong = self::wrong("dx", &context.download(&dx).await?, &expected_dx);
        }
        Ok(wrong)
    }
}

/// The first value that is not what it should be.
fn wrong(what: &str, got: &[f32], expected: &[f64]) -> Option<String> {
    let is_right = |got: f64, expected: f64| match expected.is_nan() {
        true => got.is_nan(),
        false => (got - expected).abs() <= TOLERANCE,
    };
    let pairs = got.iter().zip(expected).enumerate();
    let mut wrong = pairs.filter(|(_, (got, expected))| !is_right((**got).into(), **expected));
    wrong.next().map(|(i, (got, expected))| format!("{what}[{i}] is {got:?}, expected {expected:.5}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_results_are_seen() {
        assert_eq!(wrong("y", &[1.0, f32::NAN], &[1.00001, f64::NAN]), None);
        assert_eq!(wrong("y", &[1.0, 0.0], &[1.0, f64::NAN]).unwrap(), "y[1] is 0.0, expected NaN");
        assert_eq!(wrong("y", &[1.0, f32::NAN], &[1.0, 0.5]).unwrap(), "y[1] is NaN, expected 0.50000");
        assert_eq!(wrong("dx", &[0.0], &[0.95]).unwrap(), "dx[0] is 0.0, expected 0.95000");
    }

    #[test]
    fn a_nan_is_expected_in_its_channel_alone() {
        let problem = Problem::new([2, 3, 4], Layout::ChannelsFirst);
        let (y, dx) = problem.expected(Activation::Relu);
        for (i, (y, dx)) in y.iter().zip(&dx).enumerate() {
            let is_last = i / 4 % 3 == 2;
            assert_eq!((y.is_nan(), dx.is_nan()), (is_last, is_last), "{i}");
            assert!(is_last || *y >= 0.0);
        }
    }
}
