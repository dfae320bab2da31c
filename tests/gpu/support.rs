//! The shared device, reproducible data, and operations run on poisoned buffers.

use std::sync::{Mutex, OnceLock, PoisonError};

use wgnorm::eval::{self, Devices, Draw, Outcome, Problem};
use wgnorm::reference::{self, Statistics, WhereNan, bounds, compare};
use wgnorm::statistics::ChannelMoments;
use wgnorm::tuning::{ShaderChecks, Tuning};
use wgnorm::{
    BatchNorm, BatchNormOptions, Channels, Context, ContextOptions, GradientTargets, Layout, Prepared,
    RunningStatistics, RunningValues, Saved, Shape, Spec, Tensor,
};

/// The device of a test. Drivers compile one kernel at a time per device, so tests that run at once have one each, as many as there are cores
/// of a CPU; a thread keeps its own until it ends.
pub fn context() -> Context {
    thread_local! {
        static OWN: Own = Own::take();
    }
    OWN.with(|own| own.context.clone())
}

/// A thread's device until it ends.
struct Own {
    place: usize,
    context: Context,
}

static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

impl Own {
    fn take() -> Self {
        static DEVICES: OnceLock<Devices> = OnceLock::new();
        let devices = DEVICES.get_or_init(|| {
            let devices = Devices::open(&ContextOptions::default())
                .expect("the tests need an adapter; on Linux `cargo xtask setup` installs a software one");
            *FREE.lock().unwrap_or_else(PoisonError::into_inner) = (0..devices.all().len()).collect();
            devices
        });
        let place = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or(0);
        Self { place, context: devices.all()[place].clone() }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Some 2.5 MB each in a software driver.
        eval::trim(&self.context, 200);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
    }
}

/// The device of a test with what a line forces: `"splits=3 width=1"`.
pub fn tuned(words: &str) -> Context {
    context().with_tuning(format!("batch 2x2 {words}").parse::<Spec>().unwrap().tuning)
}

/// The plans of some variants of the table, whose kernels are compiled there too: a software adapter spends most of the time of these tests
/// on compiling.
fn variants(names: &[&'static str]) -> Vec<(&'static str, Context)> {
    let all = eval::variants();
    let tuning = |name: &str| all.iter().find(|variant| variant.name == name).unwrap().tuning;
    names.iter().map(|&name| (name, context().with_tuning(tuning(name)))).collect()
}

/// Plans that together use both word widths, whole and split slices, teams of some and of all invocations.
pub fn contexts() -> Vec<(&'static str, Context)> {
    variants(&["policy", "scalar", "split", "many splits", "teams"])
}

/// As [`contexts`], for walks of columns.
pub fn column_contexts() -> Vec<(&'static str, Context)> {
    let team = Tuning::default().workgroup_size(8).team_size(8).strip(1);
    let of_one = team.team_size(1);
    let rows = ("3 rows", context().with_tuning(team.rows(3)));
    [
        vec![("columns", context().with_tuning(of_one))],
        variants(&["scalar", "split"]),
        vec![rows],
        variants(&["teams"]),
    ]
    .concat()
}

/// A few of [`contexts`], for tests of what hardly depends on how a walk is cut.
pub fn few_contexts() -> Vec<(&'static str, Context)> {
    variants(&["policy", "split"])
}

/// A problem from its line.
pub fn problem(line: &str) -> Problem {
    let (draw, rest) = Draw::take(line).unwrap();
    Problem::new(&rest.parse().unwrap(), &draw).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Runs a problem, in the plan of its line or, if that forces nothing, of the context, and fails unless all is as it must be.
#[track_caller]
pub fn assert_holds(context: &Context, line: &str) -> Outcome {
    let problem = problem(line);
    let mut plan = eval::Plan::of(&problem.spec);
    if plan.tuning == Tuning::default() {
        plan.tuning = *context.tuning();
    }
    let outcome = context.block_on(problem.run_in(context, &plan));
    assert!(outcome.passes(), "{line} {:?}: {:#?}", plan.tuning, outcome.failures());
    outcome
}

/// Two runs gave the same bits.
#[track_caller]
pub fn assert_same_outcome(what: &str, a: &Outcome, b: &Outcome) {
    for ((name, a), (other, b)) in a.outputs.iter().zip(&b.outputs) {
        assert_eq!(name, other, "{what}");
        assert!(bits(a) == bits(b), "{what}: other bits in {name}");
    }
}

/// A device whose kernels check every index, as an application can ask for.
pub fn checked_context() -> Context {
    let options = ContextOptions::default().shader_checks(ShaderChecks::Checked);
    kept(pollster::block_on(Context::headless_with(&options)).expect("the tests need an adapter"))
}

/// Another device than [`context`].
pub fn other_context() -> Context {
    static OTHER: OnceLock<Context> = OnceLock::new();
    OTHER.get_or_init(|| Context::headless_blocking().expect("the tests need an adapter")).clone()
}

/// A device of its own on the adapter of the shared one, as an application opens it.
pub fn own_device(limits: wgpu::Limits) -> (wgpu::Device, wgpu::Queue) {
    let name = context().device().adapter_info().name;
    pollster::block_on(async {
        let adapters = wgnorm::tuning::adapters().await;
        let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == name).unwrap();
        let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
        let (device, queue) = adapter.request_device(&descriptor).await.unwrap();
        keep(&device);
        (device, queue)
    })
}

/// A context on a device of its own.
pub fn own_context() -> Context {
    let (device, queue) = own_device(wgpu::Limits::default());
    Context::from_wgpu(device, queue).unwrap()
}

/// A context that has opened a device of its own.
pub fn headless() -> Context {
    kept(Context::headless_blocking().expect("the tests need an adapter"))
}

/// The same context, whose device stays until the process ends: whenever an object is named, the Vulkan loader (1.3.239) walks through
/// a list of all devices without a lock, and a thread that destroys one takes it away from under another.
pub fn kept(context: Context) -> Context {
    keep(context.device());
    context
}

fn keep(device: &wgpu::Device) {
    static DEVICES: Mutex<Vec<wgpu::Device>> = Mutex::new(Vec::new());
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner).push(device.clone());
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

/// A buffer of exactly these values.
pub fn exact_buffer(context: &Context, content: &[f32]) -> wgpu::Buffer {
    use wgpu::BufferUsages as Usage;
    let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * content.len().max(1) as u64,
        usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
        mapped_at_creation: false,
    });
    context.queue().write_buffer(&buffer, 0, &bytes(content));
    buffer
}

/// Where a tensor lies in its buffer.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Elements before it, and a guard of whole words.
    pub offset: usize,
    /// Elements after it.
    pub tail: usize,
    pub layout: Layout,
}

impl Place {
    pub fn at(offset: usize) -> Self {
        Self { offset, tail: GUARD, layout: Layout::ChannelsFirst }
    }

    /// A tensor with these values among others.
    fn tensor(self, context: &Context, shape: &[usize], values: &[f32], around: f32) -> Tensor {
        let mut content = vec![around; GUARD + self.offset];
        content.extend(values);
        content.resize(content.len() + self.tail, around);
        let begin = 4 * (GUARD + self.offset) as u64;
        let tensor = Tensor::from_buffer(context, exact_buffer(context, &content), begin, shape).unwrap();
        tensor.with_layout(self.layout)
    }

    /// A tensor of NaN whose surroundings are guards.
    pub fn poisoned(self, context: &Context, shape: &[usize]) -> Tensor {
        let len = Shape::new(shape).unwrap().len() as usize;
        self.tensor(context, shape, &vec![f32::NAN; len], GUARD_VALUE)
    }

    /// A tensor with values amid NaN.
    pub fn placed(self, context: &Context, shape: &[usize], values: &[f32]) -> Tensor {
        self.tensor(context, shape, values, f32::NAN)
    }
}

/// A tensor inside a larger buffer, starting `offset` elements after its guard; its own values are NaN.
pub fn poisoned(context: &Context, shape: &[usize], offset: usize) -> Tensor {
    Place::at(offset).poisoned(context, shape)
}

/// A tensor with values amid NaN, starting `offset` elements after a whole number of words.
pub fn placed(context: &Context, shape: &[usize], values: &[f32], offset: usize) -> Tensor {
    Place::at(offset).placed(context, shape, values)
}

/// All that a buffer holds.
pub fn download_buffer(context: &Context, buffer: &wgpu::Buffer) -> Vec<f32> {
    let words = (buffer.size() / 4) as usize;
    download(context, &Tensor::from_buffer(context, buffer.clone(), 0, &[words]).unwrap())
}

/// Downloads a tensor and checks the guards around a [`poisoned`] one.
pub fn download_guarded(context: &Context, tensor: &Tensor) -> Vec<f32> {
    let all = download_buffer(context, tensor.buffer());
    let first = tensor.byte_offset() as usize / 4;
    let last = first + tensor.shape().len() as usize;
    let guards = |words: &[f32]| words.iter().all(|v| v.to_bits() == GUARD_VALUE.to_bits());
    assert!(guards(&all[..first]), "words before the tensor changed");
    assert!(guards(&all[last..]), "words after the tensor changed");
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

/// Inputs of a layer. The default is channels first, at whole words.
#[derive(Clone)]
pub struct Inputs {
    pub dims: Vec<usize>,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
    pub running: RunningValues,
    /// Elements by which tensors are moved from whole words.
    pub offset: usize,
    /// Elements by which x, dy, y and dx are moved beyond that.
    pub skew: [usize; 4],
    /// Elements between the end of a tensor and that of its buffer.
    pub tail: usize,
    pub layout: Layout,
}

impl Inputs {
    pub fn new(seed: u64, dims: &[usize]) -> Self {
        Self::of(seed, dims, Layout::ChannelsFirst)
    }

    /// With axes in memory order.
    pub fn of(seed: u64, dims: &[usize], layout: Layout) -> Self {
        let view = Shape::new(dims).unwrap().channels(layout).unwrap();
        let (len, c) = (view.elements() as usize, view.channels as usize);
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
            skew: [0; 4],
            tail: GUARD,
            layout,
        }
    }

    pub fn view(&self) -> Channels {
        Shape::new(&self.dims).unwrap().channels(self.layout).unwrap()
    }

    pub fn channels(&self) -> usize {
        self.view().channels as usize
    }

    /// Where x, dy, y and dx lie.
    pub fn places(&self) -> [Place; 4] {
        self.skew.map(|skew| Place { offset: self.offset + skew, tail: self.tail, layout: self.layout })
    }

    /// Where a value per channel lies.
    pub fn place_per_channel(&self) -> Place {
        Place { tail: self.tail, ..Place::at(self.offset) }
    }

    pub fn place_x(&self, context: &Context) -> Tensor {
        self.places()[0].placed(context, &self.dims, &self.x)
    }

    pub fn place_dy(&self, context: &Context) -> Tensor {
        self.places()[1].placed(context, &self.dims, &self.dy)
    }

    /// x in a buffer of its own.
    pub fn upload_x(&self, context: &Context) -> Tensor {
        upload(context, &self.dims, &self.x).with_layout(self.layout)
    }

    pub fn upload_dy(&self, context: &Context) -> Tensor {
        upload(context, &self.dims, &self.dy).with_layout(self.layout)
    }

    pub fn layer(&self, context: &Context, options: BatchNormOptions) -> BatchNorm {
        let c = self.channels();
        let place =
            |v: &Option<Vec<f32>>| v.as_ref().map(|v| self.place_per_channel().placed(context, &[c], v));
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
    let per_channel = || inputs.place_per_channel().poisoned(context, &[inputs.channels()]);
    (
        inputs.places()[3].poisoned(context, &inputs.dims),
        inputs.gamma.is_some().then(per_channel),
        inputs.beta.is_some().then(per_channel),
    )
}

/// Training forward and backward.
pub fn train(context: &Context, inputs: &Inputs, layer: &mut BatchNorm) -> Outputs {
    let (x, dy) = (inputs.place_x(context), inputs.place_dy(context));
    let y = inputs.places()[2].poisoned(context, &inputs.dims);
    let (dx, dgamma, dbeta) = gradient_tensors(context, inputs);
    context.block_on(async {
        let saved = Saved::new(context, &x).await.unwrap();
        let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await.unwrap();
        let targets = GradientTargets::default().dx(&dx).dgamma(dgamma.as_ref()).dbeta(dbeta.as_ref());
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
    let (x, dy) = (inputs.place_x(context), inputs.place_dy(context));
    let y = inputs.places()[2].poisoned(context, &inputs.dims);
    let (dx, dgamma, dbeta) = gradient_tensors(context, inputs);
    context.block_on(async {
        let forward = layer.prepare_infer(&x, &y).await.unwrap();
        let targets = GradientTargets::default().dx(&dx).dgamma(dgamma.as_ref()).dbeta(dbeta.as_ref());
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

/// Moments agree with the reference, the mean far below f32's resolution of the mean itself.
#[track_caller]
pub fn assert_moments(what: &str, view: Channels, x: &[f32], got: &[ChannelMoments]) {
    let expected = reference::reduce::moments(&wide(x), view);
    assert_eq!(got.len(), expected.len(), "{what}");
    for (c, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let s = Statistics::new(expected.mean, expected.var, 1e-5);
        assert_eq!(got.count, expected.count, "{what} channel {c}");
        assert_eq!(got.shift + got.delta, got.shift, "{what} channel {c}: the shift is not the nearest f32");
        let bound = bounds::MEAN * bounds::U * expected.var.sqrt();
        let error = (got.mean() - expected.mean).abs();
        assert!(error <= bound, "{what} channel {c}: mean off by {error:e}, allowed {bound:e}");
        // TINY of the bound covers flushed results.
        let error = (f64::from(got.var) - expected.var).abs();
        let bound = bounds::var(&s);
        assert!(error <= bound, "{what} channel {c}: variance off by {error:e}, allowed {bound:e}");
    }
}

/// Running statistics after one batch of PyTorch's options.
#[track_caller]
pub fn assert_running(what: &str, inputs: &Inputs, got: &RunningValues) {
    use wgnorm::{Momentum::WeightOfNew, RunningVariance::Unbiased};
    let start = inputs.running.mean.iter().zip(&inputs.running.var);
    let batches = inputs.running.batches.into();
    let expected: Vec<_> = start
        .zip(reference::reduce::moments(&wide(&inputs.x), inputs.view()))
        .map(|((&mean, &var), batch)| {
            let before = reference::fold::Running { mean: mean.into(), var: var.into(), batches };
            before.update(batch, WeightOfNew(0.1), Unbiased)
        })
        .collect();
    assert_eq!(got.batches, inputs.running.batches + 1, "{what}");
    let mean: Vec<_> = expected.iter().map(|r| r.mean).collect();
    let var: Vec<_> = expected.iter().map(|r| r.var).collect();
    let bound = |value: f64| 16.0 * bounds::U * value.abs().max(1.0);
    assert_within(&format!("{what}: running mean"), &got.mean, &mean, WhereNan::Nan, |c| bound(mean[c]));
    assert_within(&format!("{what}: running var"), &got.var, &var, WhereNan::Nan, |c| bound(var[c]));
}

/// Values are the same, bit by bit.
#[track_caller]
pub fn assert_bits(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got.to_bits() == expected.to_bits(), "{what}: [{i}] is {got:e}, expected {expected:e}");
    }
}

/// The results of two runs are the same, bit by bit.
#[track_caller]
pub fn assert_same(what: &str, got: &Outputs, expected: &Outputs) {
    assert_bits(&format!("{what}: y"), &got.y, &expected.y);
    assert_bits(&format!("{what}: dx"), &got.dx, &expected.dx);
    let parameters = |o: &Outputs| [&o.dgamma, &o.dbeta].map(|g| g.as_deref().map(bits));
    assert_eq!(parameters(got), parameters(expected), "{what}: dgamma, dbeta");
}

/// Channel of a flat index.
pub fn channel_of(view: Channels) -> impl Fn(usize) -> usize {
    move |i| view.channel_of(i as u64) as usize
}
