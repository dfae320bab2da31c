//! Dynamic Tanh and Derf on one shape in one layout and cache state: inputs, what [`reference::curve`](wgnorm::reference::curve) makes of
//! them, tensors, prepared operations, check and timing.

use wgnorm::reference::activation::kinks;
use wgnorm::reference::curve::{self, Parameters};
use wgnorm::reference::{bounds, map};
use wgnorm::{
    Activation, Channels, Context, Curve, CurveGradients, CurveOptions, DType, Derf, DynamicTanh, Input,
    Layout, Plan, Prepared, Result, Shape, Tensor, Traffic, Tuning, prepare_copy,
};

use super::case::{Kernels, Measured, poison, sets_for, submit};
use super::data::{rounded, values, widen};
use super::expected::{Worst, clear_kinks};
use super::measure::{Meter, Work};
use super::timed::Timed;
use super::variant::Variant;
use super::{BenchOp, Cache, layout};
use crate::Refusal;

const ALPHA: f32 = 0.5;
const SHIFT: f32 = 0.25;

/// Inputs in logical order; the values that are uploaded, already rounded to the element type.
pub struct Data {
    curve: Curve,
    dims: Vec<usize>,
    view: Channels,
    variant: Variant,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    dy: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Data {
    pub fn new(curve: Curve, dims: &[usize], variant: Variant) -> Result<Self> {
        let view = Shape::new(dims)?.channels(Layout::ChannelsFirst)?;
        let (len, c) = (view.elements() as usize, view.channels as usize);
        let stored = |seed, shift, scale| rounded(variant.dtype, values(seed, len, shift, scale));
        let mut data = Self {
            curve,
            dims: dims.to_vec(),
            view,
            variant,
            x: stored(1, 0.5, 2.0),
            residual: variant.residual.then(|| stored(7, 0.0, 1.0)),
            dy: stored(2, 0.0, 1.0),
            gamma: values(3, c, 1.0, 0.5),
            beta: values(4, c, 0.0, 0.5),
        };
        if !kinks(variant.activation).is_empty() {
            let mut dy = std::mem::take(&mut data.dy);
            let z = data.with_wide(|x, p| curve::forward(x, view, p));
            clear_kinks(&mut dy, variant.activation, |i| z[i] + data.added(i).unwrap_or(0.0));
            data.dy = dy;
        }
        Ok(data)
    }

    fn with_wide<T>(&self, of: impl FnOnce(&[f64], &Parameters<'_>) -> T) -> T {
        let (x, gamma, beta) = (widen(&self.x), widen(&self.gamma), widen(&self.beta));
        let shift = if self.curve == Curve::Tanh { 0.0 } else { SHIFT.into() };
        let (gamma, beta) = (Some(&gamma[..]), Some(&beta[..]));
        of(&x, &Parameters { curve: self.curve, alpha: ALPHA.into(), shift, gamma, beta })
    }

    fn added(&self, i: usize) -> Option<f64> {
        self.residual.as_ref().map(|residual| residual[i].into())
    }

    /// Compares outputs, by name, with the reference. Returns the worst error as a fraction of its bound, or what is wrong.
    fn check(&self, results: &[(&'static str, Vec<f32>)]) -> std::result::Result<f64, String> {
        self.with_wide(|x, p| {
            let (view, Variant { dtype, activation, .. }) = (self.view, self.variant);
            let residual = self.residual.as_deref().map(widen);
            let dy = widen(&self.dy);
            let z = curve::forward(x, view, p);
            let channel = |i: usize| view.channel_of(i as u64) as usize;
            let z_bound = |i: usize| curve::z_bound(p, x[i], channel(i), self.added(i));
            let dz = map::dz(&z, residual.as_deref(), &dy, activation);
            let dz_bound = |i: usize| bounds::dz(activation, dy[i], z_bound(i));
            let gradients = curve::backward(x, &dz, view, p);
            let sums = curve::sum_bounds(x, &dz, view, p, dz_bound);
            let mut worst = Worst::within(1.0);
            for (name, got) in results {
                let (dtype, expected, bound): (_, _, Box<dyn Fn(usize) -> f64>) = match *name {
                    "y" => {
                        let with = |i: usize| z[i] + self.added(i).unwrap_or(0.0);
                        let bound = move |i| bounds::activated(activation, with(i), z_bound(i));
                        (dtype, map::activated(&z, residual.as_deref(), activation), Box::new(bound))
                    }
                    "dx" => {
                        let bound = |i: usize| curve::dx_bound(p, x[i], channel(i), dz[i], dz_bound(i));
                        (dtype, gradients.dx.clone(), Box::new(bound))
                    }
                    "d_residual" => (dtype, dz.clone(), Box::new(dz_bound)),
                    "dgamma" => (DType::F32, gradients.dgamma.clone(), Box::new(|c| sums.dgamma[c])),
                    "dbeta" => (DType::F32, gradients.dbeta.clone(), Box::new(|c| sums.dbeta[c])),
                    "dalpha" => (DType::F32, vec![gradients.dalpha], Box::new(|_| sums.dalpha)),
                    _ => (DType::F32, vec![gradients.dshift], Box::new(|_| sums.dshift)),
                };
                worst.hold(name, dtype, got, &expected, |i| bounds::stored(dtype, expected[i], bound(i)))?;
            }
            Ok(worst.ratio)
        })
    }
}

enum AnyLayer {
    Tanh(DynamicTanh),
    Erf(Derf),
}

/// Tensors of the shape.
struct Set {
    x: Tensor,
    residual: Option<Tensor>,
    dy: Tensor,
    y: Tensor,
    gradients: CurveGradients,
}

/// Everything that one shape needs. Operations share inputs and outputs.
pub struct Cases<'c> {
    context: &'c Context,
    data: &'c Data,
    layer: AnyLayer,
    /// One where the cache is warm.
    sets: Vec<Set>,
    copies: Vec<Prepared>,
}

/// One operation, prepared for every set.
pub struct Case<'a, 'c> {
    cases: &'a Cases<'c>,
    op: BenchOp,
    operations: Vec<Prepared>,
}

impl<'c> Cases<'c> {
    pub fn new(
        context: &'c Context,
        data: &'c Data,
        layout: Layout,
        cache: Cache,
    ) -> std::result::Result<Self, String> {
        let count = sets_for(cache, data.variant.dtype.size() * data.x.len() as u64)?;
        let made = context.block_on(Self::with_sets(context, data, layout, count));
        made.map_err(|error| format!("{count} sets of tensors: {error}"))
    }

    async fn with_sets(context: &'c Context, data: &'c Data, layout: Layout, count: u64) -> Result<Self> {
        let parameter = async |values: &[f32]| context.upload(&[values.len()], values).await;
        let (alpha, gamma, beta) =
            (parameter(&[ALPHA]).await?, parameter(&data.gamma).await?, parameter(&data.beta).await?);
        let options = CurveOptions::default().activation(data.variant.activation);
        let (gamma, beta) = (Some(gamma), Some(beta));
        let layer = match data.curve {
            Curve::Tanh => AnyLayer::Tanh(DynamicTanh::from_parts(context, options, alpha, gamma, beta)?),
            _ => {
                let shift = parameter(&[SHIFT]).await?;
                AnyLayer::Erf(Derf::from_parts(context, options, alpha, shift, gamma, beta)?)
            }
        };
        let mut cases = Self { context, data, layer, sets: Vec::new(), copies: Vec::new() };
        let upload = async |values: &[f32]| {
            layout::upload(context, layout, &data.dims, values, data.variant.dtype).await
        };
        // Forced plans are the operation's: the yardstick stays what it is.
        let free = context.with_tuning(Tuning::default());
        for _ in 0..count {
            let (x, dy) = (upload(&data.x).await?, upload(&data.dy).await?);
            let residual = match &data.residual {
                Some(residual) => Some(upload(residual).await?),
                None => None,
            };
            let y = context.zeros_like(&x).await?;
            let input = Input { residual: residual.as_ref(), ..(&x).into() };
            let gradients = match &cases.layer {
                AnyLayer::Tanh(layer) => layer.backward(input, &dy).await?,
                AnyLayer::Erf(layer) => layer.backward(input, &dy).await?,
            };
            cases.copies.push(prepare_copy(&free, &x, &y).await?);
            cases.sets.push(Set { x, residual, dy, y, gradients });
        }
        Ok(cases)
    }

    /// Sets of tensors that are rotated over.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Prepares an operation.
    pub fn case(&self, op: BenchOp) -> std::result::Result<Case<'_, 'c>, String> {
        let prepared = self.sets.iter().map(|set| self.prepare(op, set)).collect::<Result<_>>();
        Ok(Case { cases: self, op, operations: prepared.map_err(|error| error.to_string())? })
    }

    fn prepare(&self, op: BenchOp, set: &Set) -> Result<Prepared> {
        let input = Input { residual: set.residual.as_ref(), ..(&set.x).into() };
        let mut targets = set.gradients.targets();
        if self.data.variant.activation == Activation::None {
            // It is dy.
            targets.d_residual = None;
        }
        self.context.block_on(async {
            match (&self.layer, op.is_forward()) {
                (AnyLayer::Tanh(layer), true) => layer.prepare_forward(input, &set.y).await,
                (AnyLayer::Erf(layer), true) => layer.prepare_forward(input, &set.y).await,
                (AnyLayer::Tanh(layer), false) => layer.prepare_backward(input, &set.dy, &targets).await,
                (AnyLayer::Erf(layer), false) => layer.prepare_backward(input, &set.dy, &targets).await,
            }
        })
    }

    /// What an operation writes on the first set.
    fn outputs(&self, op: BenchOp) -> Vec<(&'static str, &Tensor)> {
        let Set { y, gradients, .. } = &self.sets[0];
        if op.is_forward() {
            return vec![("y", y)];
        }
        let activated = self.data.variant.activation != Activation::None;
        let mut outputs = vec![("dx", &gradients.dx), ("dalpha", &gradients.dalpha)];
        outputs.extend(gradients.d_residual.as_ref().filter(|_| activated).map(|d| ("d_residual", d)));
        outputs.extend(gradients.dgamma.as_ref().map(|d| ("dgamma", d)));
        outputs.extend(gradients.dbeta.as_ref().map(|d| ("dbeta", d)));
        outputs.extend(gradients.dshift.as_ref().map(|d| ("dshift", d)));
        outputs
    }
}

impl Timed for Case<'_, '_> {
    fn traffic(&self) -> Traffic {
        self.operations[0].traffic()
    }

    fn tensor_bytes(&self) -> u64 {
        self.traffic().floor_bytes
    }

    fn workspace_bytes(&self) -> u64 {
        self.operations[0].workspace_bytes()
    }

    fn plan(&self) -> Option<&Plan> {
        self.operations[0].plan()
    }

    fn kernels(&self) -> Vec<String> {
        self.operations[0].kernels().map(str::to_owned).collect()
    }

    fn check(&mut self) -> std::result::Result<f64, String> {
        let Cases { context, data, .. } = self.cases;
        let outputs = self.cases.outputs(self.op);
        outputs.iter().for_each(|(_, tensor)| poison(context, tensor));
        submit(context, |pass| self.operations[0].record_in(pass));
        let results = outputs.into_iter().map(|(name, tensor)| {
            let values = match name {
                "y" | "dx" | "d_residual" => context.block_on(layout::download(context, &data.dims, tensor)),
                _ => context.block_on(context.download(tensor)),
            };
            values.map(|values| (name, values))
        });
        let results = results.collect::<Result<Vec<_>>>().map_err(|error| error.to_string())?;
        data.check(&results)
    }

    fn check_baselines(&mut self, _: &mut Kernels) -> std::result::Result<(), String> {
        Ok(())
    }

    fn time(&mut self, _: &mut Kernels, meter: &mut Meter<'_>) -> std::result::Result<Measured, Refusal> {
        let mut works = [&self.operations, &self.cases.copies].map(|prepared| Work {
            record: Box::new(|pass, set| prepared[set].record_in(pass)),
            bytes: prepared[0].traffic().plan_bytes,
            restore: None,
        });
        let times = meter.time(&mut works, self.cases.sets.len())?;
        let [work, copy] = times[..] else { return Err("an operation and a copy have a time each".into()) };
        Ok(Measured { work, copy, naive: None, separate: None })
    }
}
