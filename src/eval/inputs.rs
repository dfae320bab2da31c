//! The tensors of a problem on the host, made from its spec and a draw.

use super::data::{self, Data, Draw, Gamma, bell, narrow, rounded, uniform_of, widen, x_of};
use super::random::derived;
use super::slices;
use crate::base::dtype::DType;
use crate::base::shape::{Channels, Layout, Shape};
use crate::reference::{masked, reduce};
use crate::spec::{Norm, Spec, Statistics};
use crate::statistics::running::RunningValues;
use crate::statistics::saved::Saved;

/// Values in logical order, already rounded to the types that they are stored in.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// x.
    pub x: Vec<f32>,
    /// What is added to x before the norm, if anything is.
    pub addend: Option<Vec<f32>>,
    /// What is added before the activation, if anything is.
    pub residual: Option<Vec<f32>>,
    /// The gate, if there is one.
    pub gate: Option<Vec<f32>>,
    /// The gradient of y, if there is a backward pass.
    pub dy: Option<Vec<f32>>,
    /// The gradient that the sum has from elsewhere.
    pub d_sum: Option<Vec<f32>>,
    /// Tangents, if derivatives are taken.
    pub tangents: Option<InputTangents>,
    /// gamma.
    pub gamma: Option<Vec<f32>>,
    /// beta.
    pub beta: Option<Vec<f32>>,
    /// Running statistics before, where the norm has them.
    pub running: RunningValues,
    /// Which positions count: of each sample in turn.
    pub keep: Option<Vec<bool>>,
    /// alpha of a curve, of GraphNorm for each channel, or the logits of switchable norm's weights of means; else empty.
    pub alpha: Vec<f32>,
    /// The shift of a curve, or the logits of switchable norm's weights of variances; else empty.
    pub shift: Vec<f32>,
    /// u and v of spectral norm before.
    pub directions: (Vec<f32>, Vec<f32>),
    /// The shards of all ranks, or the batches of a sequence, of which the last is inferred.
    pub parts: Vec<Part>,
}

/// In which direction x and the parameters change.
#[derive(Clone, Debug)]
pub struct InputTangents {
    /// That of x.
    pub x: Vec<f32>,
    /// That of gamma, if there is one.
    pub gamma: Option<Vec<f32>>,
    /// That of beta, if there is one.
    pub beta: Option<Vec<f32>>,
}

/// One of several batches.
#[derive(Clone, Debug)]
pub struct Part {
    /// In logical order.
    pub shape: Vec<usize>,
    /// x.
    pub x: Vec<f32>,
    /// The gradient of y, if there is a backward pass.
    pub dy: Option<Vec<f32>>,
}

/// A shape in logical order as channels.
pub(super) fn channels(shape: &[usize]) -> Channels {
    let view = Shape::new(shape).and_then(|shape| shape.channels(Layout::ChannelsFirst));
    view.unwrap_or(Channels { samples: 0, channels: 1, inner: 1, layout: Layout::ChannelsFirst })
}

impl Inputs {
    /// The values of a problem, before kinks are avoided.
    pub(super) fn draw(spec: &Spec, draw: &Draw) -> Self {
        let Draw { data, gamma, seed } = *draw;
        let elements = spec.elements();
        let random = |what: &str| rounded(&narrow(bell(derived(seed, what), elements)), spec.dtype);
        let own = spec.parameter_shape().iter().product();
        let parameter = |what: &str, shift: f32| -> Vec<f32> {
            narrow(uniform_of(seed, what, own)).into_iter().map(|value| value + shift).collect()
        };
        let has_running = spec.norm.is_batch() || spec.norm.tracks();
        let running = |what: &str, shift: f32| -> Vec<f32> {
            let channels = if has_running { spec.shape[1] } else { 0 };
            narrow(uniform_of(seed, what, channels)).into_iter().map(|value| value + shift).collect()
        };
        // Negative here and there, as g, but for batch norm, whose gamma `Gamma` tells.
        let centre = match spec.norm.is_batch() {
            true => 1.5,
            false if spec.unit_offset => -0.4,
            false => 0.6,
        };
        let gamma = spec.affine.has_gamma().then(|| {
            let mut values = parameter("/gamma", centre);
            match gamma {
                Gamma::Plain => {}
                Gamma::Signs => values.iter_mut().skip(1).step_by(2).for_each(|gamma| *gamma = -*gamma),
                Gamma::Large => values.iter_mut().for_each(|gamma| *gamma *= 4e4),
                Gamma::Huge => values.iter_mut().for_each(|gamma| *gamma *= 1e36),
                Gamma::Lost(channel) => {
                    if let Some(gamma) = values.get_mut(channel) {
                        *gamma = 0.5 * Saved::least_gamma(spec.dtype);
                    }
                }
            }
            rounded(&values, spec.parameters)
        });
        let tangent = |what: &str| rounded(&parameter(what, 0.0), spec.parameters);
        let gamma_tangent = || spec.affine.has_gamma().then(|| tangent("/gamma_tangent"));
        let beta_tangent = || spec.affine.has_beta().then(|| tangent("/beta_tangent"));
        let mut inputs = Self {
            x: x_like(spec, &spec.shape, spec.dtype, seed, data),
            addend: spec.sum.then(|| random("/addend")),
            residual: spec.residual.then(|| random("/residual")),
            gate: spec.gate.is_some().then(|| random("/gate")),
            dy: (spec.has_backward() || spec.has_second()).then(|| random("/dy")),
            tangents: spec.has_second().then(|| InputTangents {
                x: random("/x_tangent"),
                gamma: gamma_tangent(),
                beta: beta_tangent(),
            }),
            d_sum: (spec.sum && spec.has_backward()).then(|| random("/d_sum")),
            gamma,
            beta: spec.affine.has_beta().then(|| rounded(&parameter("/beta", 0.0), spec.parameters)),
            running: RunningValues { mean: running("/mean", 0.2), var: running("/var", 1.4), batches: 0 },
            keep: None,
            // Of few bits, so that every type of parameters has them.
            alpha: match &spec.norm {
                Norm::Graph => rounded(&parameter("/alpha", 0.75), spec.parameters),
                Norm::Switchable(_) => vec![0.5, -0.25, 0.125],
                norm => norm.curve().map(|_| 0.75).into_iter().collect(),
            },
            shift: match &spec.norm {
                Norm::Derf => vec![-0.25],
                Norm::Switchable(_) => vec![-0.5, 0.25, 1.0],
                _ => Vec::new(),
            },
            directions: spec.directions_of(|what, len| {
                let values = bell(derived(seed, what), len);
                let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
                narrow(values.iter().map(|value| value / length).collect())
            }),
            parts: Vec::new(),
        };
        match &spec.statistics {
            Statistics::Synchronised(samples) => inputs.parts = shards(spec, samples, seed),
            Statistics::Sequence(steps) => inputs.parts = sequence(spec, *steps, seed),
            _ => {}
        }
        if spec.norm == Norm::FrozenBatch {
            inputs.follow_data(channels(&spec.shape));
        }
        if let Some(run) = spec.mask {
            inputs.mask(spec, run, seed);
        }
        inputs
    }

    /// Running statistics near those of the data, so that x̂ is of order one also for large means.
    fn follow_data(&mut self, view: Channels) {
        if view.count() == 0 {
            return;
        }
        for (c, m) in reduce::moments(&widen(&self.x), view).iter().enumerate() {
            if m.var.is_finite() && m.var < 1e37 {
                self.running.mean[c] += m.mean as f32;
                self.running.var[c] += m.var as f32;
            }
        }
    }

    /// A mask in which `run` positions in a row count, or do not. What does not is NaN, or infinite where that leaves statistics alone.
    fn mask(&mut self, spec: &Spec, run: usize, seed: u64) {
        let view = spec.positions();
        let other = if spec.norm.is_of_rows() { f32::NAN } else { f32::INFINITY };
        let positions = view.count() as usize;
        let draws = uniform_of(seed, "/mask", positions.div_ceil(run));
        let keep: Vec<bool> = (0..positions).map(|i| draws[i / run] > -0.3).collect();
        for i in (0..self.x.len()).filter(|&i| !masked::counts(view, &keep, i)) {
            self.x[i] = [f32::NAN, other][i % 2];
            if let Some(dy) = &mut self.dy {
                dy[i] = [f32::NEG_INFINITY, f32::NAN, 3.0][i % 3];
            }
        }
        self.keep = Some(keep);
    }

    /// What is normalized: x, or the sum as it is stored.
    pub(super) fn normalized(&self, dtype: DType) -> Vec<f32> {
        match &self.addend {
            None => self.x.clone(),
            Some(addend) => {
                let sum: Vec<f32> = self.x.iter().zip(addend).map(|(x, addend)| x + addend).collect();
                rounded(&sum, dtype)
            }
        }
    }

    /// gamma of a channel, 1 where there is none.
    pub(super) fn gamma(&self, c: usize) -> f64 {
        self.gamma.as_ref().map_or(1.0, |gamma| gamma[c].into())
    }

    /// beta of a channel, 0 where there is none.
    pub(super) fn beta(&self, c: usize) -> f64 {
        self.beta.as_ref().map_or(0.0, |beta| beta[c].into())
    }
}

/// x of a shape whose slices, those of the norm, are distributed so.
fn x_like(spec: &Spec, shape: &[usize], dtype: DType, seed: u64, data: Data) -> Vec<f32> {
    let elements = shape.iter().product();
    let slices: Vec<Vec<usize>> = match spec.norm.is_of_slices() {
        _ if spec.norm.spectral().is_some() => vec![(0..elements).collect()],
        true => slices::members(spec),
        false => {
            let view = channels(shape);
            (0..view.channels).map(|c| reduce::channel(view, c).collect()).collect()
        }
    };
    data::stored(x_of(seed, elements, slices, data), dtype, data)
}

/// Shards whose means and scales differ by orders of magnitude.
fn shards(spec: &Spec, samples: &[usize], seed: u64) -> Vec<Part> {
    let distributions = [Data::LargeMean, Data::Normal, Data::ShiftedMean];
    let shard = |(rank, &samples): (usize, &usize)| {
        let mut shape = spec.shape.clone();
        shape[0] = samples;
        let seed = derived(seed, &format!("/{rank}"));
        let x = x_like(spec, &shape, spec.dtype, seed, distributions[rank % 3]);
        let dy =
            spec.has_backward().then(|| rounded(&narrow(bell(derived(seed, "/dy"), x.len())), spec.dtype));
        Part { shape, x, dy }
    };
    samples.iter().enumerate().map(shard).collect()
}

/// Batches of different means, and one more.
fn sequence(spec: &Spec, steps: usize, seed: u64) -> Vec<Part> {
    let part = |what: &str, shift: f32| {
        let x = x_like(spec, &spec.shape, DType::F32, derived(seed, what), Data::Normal);
        let x: Vec<f32> = x.into_iter().map(|value| value + shift).collect();
        Part { shape: spec.shape.clone(), x: rounded(&x, spec.dtype), dy: None }
    };
    let batches = (0..steps).map(|step| part(&format!("/{step}"), step as f32));
    batches.chain([part("/eval", 0.0)]).collect()
}
