//! The shared device, reproducible data, and operations run on poisoned buffers.

use std::sync::OnceLock;

use wgnorm::reference::{self, Statistics, WhereNan, bounds, compare};
use wgnorm::{
    BatchNorm, BatchNormOptions, Channels, Context, ContextOptions, GradientTargets, Layout, Prepared,
    RunningStatistics, RunningValues, Saved, ShaderChecks, Shape, Tensor, Tuning,
};

/// The device of all tests, with bounds checks in shaders.
pub fn context() -> Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT
        .get_or_init(|| {
            let options =
                ContextOptions { shader_checks: ShaderChecks::Checked, ..ContextOptions::default() };
            pollster::block_on(Context::headless_with(&options))
                .expect("the tests need an adapter; on Linux `cargo xtask setup` installs a software one")
        })
        .clone()
}

/// Plans that together use both word widths, whole and split slices, and small and large workgroups.
pub fn tunings() -> Vec<(&'static str, Tuning)> {
    let free = Tuning::default();
    vec![
        ("policy", free),
        ("scalar", Tuning { width: Some(1), ..free }),
        ("split 3", Tuning { splits: Some(3), ..free }),
        ("split 300", Tuning { splits: Some(300), workgroup_size: Some(32), ..free }),
        ("wg 256", Tuning { workgroup_size: Some(256), ..free }),
        ("team of all", Tuning { workgroup_size: Some(32), team_size: Some(32), ..free }),
        ("teams of 1", Tuning { workgroup_size: Some(32), team_size: Some(1), splits: Some(2), ..free }),
        ("teams of 8", Tuning { workgroup_size: Some(64), team_size: Some(8), splits: Some(5), ..free }),
        ("3 rows", Tuning { rows: Some(3), ..free }),
        ("strips of 2", Tuning { strip: Some(2), workgroup_size: Some(16), team_size: Some(8), ..free }),
    ]
}

/// The shared device with each of these plans, and one whose kernels are trusted, as users run them: compilers treat the
/// two differently.
pub fn contexts() -> Vec<(&'static str, Context)> {
    let checked = tunings().into_iter().map(|(name, tuning)| (name, context().with_tuning(tuning)));
    let split = Tuning { splits: Some(3), ..Tuning::default() };
    checked
        .chain([("trusted", trusted_context()), ("trusted, split", trusted_context().with_tuning(split))])
        .collect()
}

/// The device of all tests without bounds checks in shaders.
pub fn trusted_context() -> Context {
    static CONTEXT: OnceLock<Context> = OnceLock::new();
    CONTEXT.get_or_init(|| Context::headless_blocking().expect("the tests need an adapter")).clone()
}

/// A device of its own on the adapter of the shared one, as an application opens it.
pub fn own_device(limits: wgpu::Limits) -> (wgpu::Device, wgpu::Queue) {
    let name = context().device().adapter_info().name;
    pollster::block_on(async {
        let adapters = wgnorm::adapters().await;
        let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name).unwrap();
        let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
        adapter.request_device(&descriptor).await.unwrap()
    })
}

/// A context on a device of its own.
pub fn own_context() -> Context {
    let (device, queue) = own_device(wgpu::Limits::default());
    Context::from_wgpu(device, queue).unwrap()
}

/// Uniform pseudo-random numbers in [-1, 1) (splitmix64), scaled and shifted.
pub fn values(seed: u64, len: usize, shift: f32, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            ((z >> 40) as f32 / 8_388_608.0 - 1.0) * scale + shift
        })
        .collect()
}

/// Pseudo-random numbers of a normal distribution (Box & Muller), rounded to f32 at the end.
pub fn normal(seed: u64, len: usize, mean: f64, std: f64) -> Vec<f32> {
    let uniform = wide(&values(seed, 2 * len, 0.5, 0.5));
    uniform
        .chunks_exact(2)
        .map(|pair| {
            let (radius, angle) = ((-2.0 * (1.0 - pair[0]).ln()).sqrt(), std::f64::consts::TAU * pair[1]);
            (mean + std * radius * angle.cos()) as f32
        })
        .collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Words before and after a tensor that must not change.
pub const GUARD: usize = 4;
const GUARD_VALUE: f32 = 1234.5;

/// A tensor inside a larger buffer, starting `offset` elements after its guard; its own values are NaN.
pub fn poisoned(context: &Context, shape: &[usize], offset: usize) -> Tensor {
    let len = Shape::new(shape).unwrap().len() as usize;
    let mut content = vec![GUARD_VALUE; GUARD + offset];
    content.resize(GUARD + offset + len, f32::NAN);
    content.resize(2 * GUARD + offset + len, GUARD_VALUE);
    let whole = context.block_on(context.upload(&[content.len()], &content)).unwrap();
    Tensor::from_buffer(context, whole.buffer().clone(), 4 * (GUARD + offset) as u64, shape).unwrap()
}

/// A tensor with values, starting `offset` elements into a larger buffer.
pub fn placed(context: &Context, shape: &[usize], values: &[f32], offset: usize) -> Tensor {
    let mut content = vec![f32::NAN; offset];
    content.extend(values);
    content.resize(content.len().max(1), 0.0);
    let whole = context.block_on(context.upload(&[content.len()], &content)).unwrap();
    Tensor::from_buffer(context, whole.buffer().clone(), 4 * offset as u64, shape).unwrap()
}

/// Downloads a tensor and checks the guards around a [`poisoned`] one.
pub fn download_guarded(context: &Context, tensor: &Tensor) -> Vec<f32> {
    let words = tensor.buffer().size() / 4;
    let whole = Tensor::from_buffer(context, tensor.buffer().clone(), 0, &[words as usize]).unwrap();
    let all = download(context, &whole);
    let first = tensor.byte_offset() as usize / 4;
    let last = first + tensor.shape().len() as usize;
    assert!(all[..first].iter().all(|&v| v == GUARD_VALUE), "words before the tensor changed");
    assert!(all[last..last + GUARD].iter().all(|&v| v == GUARD_VALUE), "words after the tensor changed");
    all[first..last].to_vec()
}

pub fn upload(context: &Context, shape: &[usize], values: &[f32]) -> Tensor {
    context.block_on(context.upload(shape, values)).unwrap()
}

pub fn zeros(context: &Context, shape: &[usize]) -> Tensor {
    context.block_on(context.zeros(shape)).unwrap()
}

pub fn download_running(context: &Context, running: &RunningStatistics) -> RunningValues {
    context.block_on(running.download(context)).unwrap()
}

pub fn download(context: &Context, tensor: &Tensor) -> Vec<f32> {
    context.block_on(context.download(tensor)).unwrap()
}

/// What the queue writes for these values.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Running statistics in a form that tells NaN from NaN.
pub fn running_bits(running: &RunningValues) -> (Vec<u32>, Vec<u32>, u32) {
    (bits(&running.mean), bits(&running.var), running.batches)
}

/// Records operations into one encoder and submits it.
pub fn submit(context: &Context, operations: &[&Prepared]) {
    context.block_on(context.submit(operations)).unwrap();
}

/// Fails unless a result is the error that the pattern describes.
macro_rules! refused {
    ($result:expr, $error:pat $(if $guard:expr)?) => {
        match $result {
            Err($error) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($error $(if $guard)?)),
        }
    };
}
pub(crate) use refused;

/// Inputs of a layer.
#[derive(Clone)]
pub struct Inputs {
    pub dims: Vec<usize>,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
    pub running: RunningValues,
    /// Elements by which tensors are moved from the start of their buffers.
    pub offset: usize,
}

impl Inputs {
    pub fn new(seed: u64, dims: &[usize]) -> Self {
        let len = Shape::new(dims).unwrap().len() as usize;
        let c = dims[1];
        Self {
            dims: dims.to_vec(),
            x: values(seed, len, 0.5, 2.0),
            dy: values(seed + 1, len, -0.1, 1.0),
            gamma: Some(values(seed + 2, c, 1.0, 0.7)),
            beta: Some(values(seed + 3, c, 0.0, 1.0)),
            running: RunningValues {
                mean: values(seed + 4, c, 0.3, 1.0),
                var: values(seed + 5, c, 1.5, 1.0),
                batches: 7,
            },
            offset: 0,
        }
    }

    pub fn view(&self) -> Channels {
        Shape::new(&self.dims).unwrap().channels(Layout::ChannelsFirst).unwrap()
    }

    pub fn layer(&self, context: &Context, options: BatchNormOptions) -> BatchNorm {
        let c = self.dims[1];
        let place = |v: &Option<Vec<f32>>| v.as_ref().map(|v| placed(context, &[c], v, self.offset));
        let running = context.block_on(RunningStatistics::upload(context, &self.running)).unwrap();
        BatchNorm::from_parts(context, options, place(&self.gamma), place(&self.beta), running).unwrap()
    }
}

/// Running statistics for `channels` channels, as a layer starts.
pub fn initial_running(context: &Context, channels: usize) -> RunningStatistics {
    let values = RunningValues { mean: vec![0.0; channels], var: vec![1.0; channels], batches: 0 };
    context.block_on(RunningStatistics::upload(context, &values)).unwrap()
}

/// Everything that the operations of a layer give.
pub struct Outputs {
    pub y: Vec<f32>,
    pub dx: Vec<f32>,
    pub dgamma: Option<Vec<f32>>,
    pub dbeta: Option<Vec<f32>>,
}

/// Poisoned tensors for all gradients that a layer has.
fn gradient_tensors(context: &Context, inputs: &Inputs) -> (Tensor, Option<Tensor>, Option<Tensor>) {
    let c = inputs.dims[1];
    (
        poisoned(context, &inputs.dims, inputs.offset),
        inputs.gamma.is_some().then(|| poisoned(context, &[c], inputs.offset)),
        inputs.beta.is_some().then(|| poisoned(context, &[c], inputs.offset)),
    )
}

/// Training forward and backward.
pub fn train(context: &Context, inputs: &Inputs, layer: &mut BatchNorm) -> Outputs {
    let x = placed(context, &inputs.dims, &inputs.x, inputs.offset);
    let dy = placed(context, &inputs.dims, &inputs.dy, inputs.offset);
    let y = poisoned(context, &inputs.dims, inputs.offset);
    let (dx, dgamma, dbeta) = gradient_tensors(context, inputs);
    context.block_on(async {
        let saved = Saved::new(context, &x).await.unwrap();
        let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await.unwrap();
        let targets = GradientTargets {
            dx: Some(&dx),
            dgamma: dgamma.as_ref(),
            dbeta: dbeta.as_ref(),
            ..Default::default()
        };
        let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await.unwrap();
        let mut encoder = context.device().create_command_encoder(&Default::default());
        forward.record(layer, &mut encoder).unwrap();
        backward.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
    });
    collect(context, &y, &dx, &dgamma, &dbeta)
}

/// Inference and backward through running statistics.
pub fn frozen(context: &Context, inputs: &Inputs, options: BatchNormOptions) -> Outputs {
    let layer = inputs.layer(context, options).freeze();
    let x = placed(context, &inputs.dims, &inputs.x, inputs.offset);
    let dy = placed(context, &inputs.dims, &inputs.dy, inputs.offset);
    let y = poisoned(context, &inputs.dims, inputs.offset);
    let (dx, dgamma, dbeta) = gradient_tensors(context, inputs);
    context.block_on(async {
        let forward = layer.prepare_forward(&x, &y).await.unwrap();
        let targets = GradientTargets {
            dx: Some(&dx),
            dgamma: dgamma.as_ref(),
            dbeta: dbeta.as_ref(),
            ..Default::default()
        };
        let backward = layer.prepare_backward(&x, &dy, &targets).await.unwrap();
        context.submit(&[&forward, &backward]).await.unwrap();
    });
    collect(context, &y, &dx, &dgamma, &dbeta)
}

fn collect(
    context: &Context,
    y: &Tensor,
    dx: &Tensor,
    dgamma: &Option<Tensor>,
    dbeta: &Option<Tensor>,
) -> Outputs {
    Outputs {
        y: download_guarded(context, y),
        dx: download_guarded(context, dx),
        dgamma: dgamma.as_ref().map(|t| download_guarded(context, t)),
        dbeta: dbeta.as_ref().map(|t| download_guarded(context, t)),
    }
}

/// Fails with the worst place unless every value is within its bound.
#[track_caller]
pub fn assert_within(
    what: &str,
    got: &[f32],
    expected: &[f64],
    where_nan: WhereNan,
    bound: impl Fn(usize) -> f64,
) {
    let worst = compare(got, expected, where_nan, bound).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(worst.passes(), "{what}: {worst}");
}

/// The reference of training forward and backward holds.
#[track_caller]
pub fn assert_train(what: &str, inputs: &Inputs, eps: f64, got: &Outputs) {
    let view = inputs.view();
    let (x, dy) = (wide(&inputs.x), wide(&inputs.dy));
    let gamma = inputs.gamma.as_deref().map(wide);
    let beta = inputs.beta.as_deref().map(wide);
    let forward = reference::batch::train_forward(&x, view, gamma.as_deref(), beta.as_deref(), eps);
    let s = &forward.statistics;
    let backward = reference::batch::backward(&x, &dy, view, s, gamma.as_deref());
    let sums = reference::reduce::gradient_sums(&x, &dy, view, s);
    let m = bounds::magnitudes(&x, &dy, view, s);
    let g = |c: usize| gamma.as_ref().map_or(1.0, |g| g[c]);
    let channel = channel_of(view);
    assert_y(what, inputs, s, &forward.y, got);
    assert_within(&format!("{what}: dx"), &got.dx, &backward.dx, WhereNan::Nan, |i| {
        let c = channel(i);
        bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], g(c))
    });
    assert_parameter_gradients(what, &backward, &m, got);
}

/// The reference of inference and frozen backward holds.
#[track_caller]
pub fn assert_frozen(what: &str, inputs: &Inputs, eps: f64, got: &Outputs) {
    let view = inputs.view();
    let (x, dy) = (wide(&inputs.x), wide(&inputs.dy));
    let gamma = inputs.gamma.as_deref().map(wide);
    let beta = inputs.beta.as_deref().map(wide);
    let s: Vec<_> = wide(&inputs.running.mean)
        .into_iter()
        .zip(wide(&inputs.running.var))
        .map(|(mean, var)| Statistics::new(mean, var, eps))
        .collect();
    let y = reference::batch::inference(&x, view, &s, gamma.as_deref(), beta.as_deref());
    let backward = reference::batch::frozen_backward(&x, &dy, view, &s, gamma.as_deref());
    let m = bounds::magnitudes(&x, &dy, view, &s);
    let channel = channel_of(view);
    assert_y(what, inputs, &s, &y, got);
    assert_within(&format!("{what}: dx"), &got.dx, &backward.dx, WhereNan::Nan, |i| {
        let c = channel(i);
        bounds::frozen_dx(&s[c], dy[i], gamma.as_ref().map_or(1.0, |g| g[c]))
    });
    assert_parameter_gradients(what, &backward, &m, got);
}

#[track_caller]
fn assert_y(what: &str, inputs: &Inputs, s: &[Statistics], y: &[f64], got: &Outputs) {
    let channel = channel_of(inputs.view());
    assert_within(&format!("{what}: y"), &got.y, y, WhereNan::Nan, |i| {
        let c = channel(i);
        let gamma = inputs.gamma.as_ref().map_or(1.0, |g| f64::from(g[c]));
        let beta = inputs.beta.as_ref().map_or(0.0, |b| f64::from(b[c]));
        bounds::y(&s[c], inputs.x[i].into(), gamma, beta)
    });
}

#[track_caller]
fn assert_parameter_gradients(
    what: &str,
    expected: &reference::batch::Gradients,
    m: &[bounds::Magnitudes],
    got: &Outputs,
) {
    if let Some(dgamma) = &got.dgamma {
        assert_within(&format!("{what}: dgamma"), dgamma, &expected.dgamma, WhereNan::NonFinite, |c| {
            bounds::dgamma(&m[c])
        });
    }
    if let Some(dbeta) = &got.dbeta {
        assert_within(&format!("{what}: dbeta"), dbeta, &expected.dbeta, WhereNan::NonFinite, |c| {
            bounds::dbeta(&m[c])
        });
    }
}

/// Channel of a flat index.
pub fn channel_of(view: Channels) -> impl Fn(usize) -> usize {
    move |i| view.channel_of(i as u64) as usize
}
