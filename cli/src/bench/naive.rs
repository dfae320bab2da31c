//! The baseline: the plain kernel of naive.wgsl, timed beside the crate's. It is held against the reference as they
//! are, so it is a second oracle too.

use std::collections::HashMap;

use bytemuck::{Pod, Zeroable};
use wgnorm::eval::Parameters;
use wgnorm::{Activation, BatchNormOptions, Channels, Context, DType, Layout, Momentum, Shape, Spec, Tensor};

use super::BenchOp;
use super::data::{Posed, Results, hold};
use super::measure::scoped;
use super::tensors::{Set, poison};

/// Invocations of a workgroup: `SIZE` of naive.wgsl.
const SIZE: u64 = 64;

const SCALAR: &str = "
alias Word = f32;
fn total(w: Word) -> f32 { return w; }
fn first(w: Word) -> f32 { return w; }
";
const VECTOR: &str = "
alias Word = vec4<f32>;
fn total(w: Word) -> f32 { return (w.x + w.y) + (w.z + w.w); }
fn first(w: Word) -> f32 { return w.x; }
";

/// The compiled kernels, by operation and whether words are vectors.
#[derive(Default)]
pub struct Kernels {
    compiled: HashMap<(BenchOp, bool), wgpu::ComputePipeline>,
}

/// The baseline of one problem.
pub struct Naive {
    view: Channels,
    max_iterations: u64,
    wide: bool,
    params: wgpu::Buffer,
    gamma: Tensor,
    beta: Tensor,
    saved: Tensor,
    /// Updated by training.
    running: Tensor,
    gradients: Tensor,
}

/// One operation, bound to every set of tensors.
pub struct Bound {
    pipeline: wgpu::ComputePipeline,
    groups: Vec<wgpu::BindGroup>,
    channels: u32,
}

/// Rust twin of `Params` in naive.wgsl.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    samples: u32,
    channels: u32,
    words: u32,
    lanes: u32,
    count: f32,
    eps: f32,
    momentum: f32,
    unused: u32,
}

impl Bound {
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>, set: usize) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.groups[set], &[]);
        pass.dispatch_workgroups(self.channels, 1, 1);
    }
}

impl Kernels {
    fn get(&mut self, context: &Context, op: BenchOp, wide: bool) -> Result<wgpu::ComputePipeline, String> {
        if let Some(compiled) = self.compiled.get(&(op, wide)) {
            return Ok(compiled.clone());
        }
        let source = [if wide { VECTOR } else { SCALAR }, include_str!("naive.wgsl")].concat();
        let compiled = scoped(context, || {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some("naive"),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            };
            // SAFETY: every index is below samples · channels · words, the length of the tensors, or a channel; every
            // loop ends, after as many iterations as `iterations` says. With checks it would be an unfair baseline.
            let module = unsafe {
                context
                    .device()
                    .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            };
            context.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("naive"),
                layout: None,
                module: &module,
                entry_point: Some(op.name()),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            })
        })?;
        Ok(self.compiled.entry((op, wide)).or_insert(compiled).clone())
    }
}

impl Naive {
    /// The baseline for a problem; `None` where there is none.
    pub fn new(
        context: &Context,
        layout: Layout,
        problem: &Posed,
        parameters: &Parameters,
    ) -> Result<Option<Self>, String> {
        let spec = &problem.spec;
        let Parameters { gamma: Some(gamma), beta: Some(beta), running, .. } = parameters else {
            return Ok(None);
        };
        if layout != Layout::ChannelsFirst || !is_plain(spec) {
            return Ok(None);
        }
        let view = Shape::new(&spec.shape).and_then(|shape| shape.channels(layout));
        let view = view.map_err(|error| error.to_string())?;
        let capabilities = context.capabilities();
        // One workgroup per channel must be dispatched, indices are of 32 bits, and there are no windows.
        let fits = view.channels <= u64::from(capabilities.max_workgroups_per_dimension)
            && view.elements() <= u64::from(u32::MAX)
            && 4 * view.elements() <= capabilities.max_binding_bytes;
        if !fits {
            return Ok(None);
        }
        let (wide, options) = (is_wide(view), spec.batch_options());
        let params = Params {
            samples: view.samples as u32,
            channels: view.channels as u32,
            words: words(view) as u32,
            lanes: lanes(view) as u32,
            count: view.count() as f32,
            eps: options.eps as f32,
            momentum: weight_of_new(&options),
            unused: 0,
        };
        let params = scoped(context, || {
            let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("naive"),
                size: size_of::<Params>() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            context.queue().write_buffer(&buffer, 0, bytemuck::bytes_of(&params));
            buffer
        })?;
        let running: Vec<f32> =
            running.mean.iter().zip(&running.var).flat_map(|(mean, var)| [*mean, *var]).collect();
        let pairs = [running.len()];
        context
            .block_on(async {
                Ok(Some(Self {
                    view,
                    max_iterations: capabilities.max_loop_iterations,
                    wide,
                    params,
                    gamma: gamma.clone(),
                    beta: beta.clone(),
                    saved: context.zeros(&pairs).await?,
                    running: context.upload(&pairs, &running).await?,
                    gradients: context.zeros(&pairs).await?,
                }))
            })
            .map_err(|error: wgnorm::Error| error.to_string())
    }

    /// Whether an operation walks to its end. lavapipe ends longer loops without a word, and the result is wrong.
    pub fn covers(&self, op: BenchOp) -> bool {
        !op.is_derivative() && iterations(self.view, op) <= self.max_iterations
    }

    /// Binds an operation to every set of tensors.
    pub fn bind(
        &self,
        context: &Context,
        kernels: &mut Kernels,
        op: BenchOp,
        sets: &[Set],
    ) -> Result<Bound, String> {
        let pipeline = kernels.get(context, op, self.wide)?;
        let groups = scoped(context, || {
            let layout = pipeline.get_bind_group_layout(0);
            let group = |set: &Set| {
                let result = if op.is_forward() { &set.y } else { &set.dx };
                let tensors: &[(u32, &Tensor)] = match op {
                    BenchOp::TrainForward => &[
                        (1, &set.x),
                        (3, result),
                        (4, &self.gamma),
                        (5, &self.beta),
                        (6, &self.saved),
                        (7, &self.running),
                    ],
                    BenchOp::TrainBackward => &[
                        (1, &set.x),
                        (2, &set.dy),
                        (3, result),
                        (4, &self.gamma),
                        (6, &self.saved),
                        (8, &self.gradients),
                    ],
                    BenchOp::Inference => {
                        &[(1, &set.x), (3, result), (4, &self.gamma), (5, &self.beta), (7, &self.running)]
                    }
                    BenchOp::FrozenBackward => &[
                        (1, &set.x),
                        (2, &set.dy),
                        (3, result),
                        (4, &self.gamma),
                        (7, &self.running),
                        (8, &self.gradients),
                    ],
                    BenchOp::Tangent | BenchOp::SecondBackward => unreachable!("it covers neither"),
                };
                let params = wgpu::BindGroupEntry { binding: 0, resource: self.params.as_entire_binding() };
                let tensors = tensors.iter().map(|&(binding, tensor)| wgpu::BindGroupEntry {
                    binding,
                    resource: tensor.buffer().as_entire_binding(),
                });
                context.device().create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("naive"),
                    layout: &layout,
                    entries: &[params].into_iter().chain(tensors).collect::<Vec<_>>(),
                })
            };
            sets.iter().map(group).collect()
        })?;
        Ok(Bound { pipeline, groups, channels: self.view.channels as u32 })
    }

    /// Runs an operation on the first set and compares its results with the reference.
    pub fn check(
        &self,
        context: &Context,
        kernels: &mut Kernels,
        op: BenchOp,
        sets: &[Set],
        problem: &Posed,
    ) -> Result<f64, String> {
        let first = &sets[..1];
        for tensor in [&first[0].y, &first[0].dx, &self.gradients, &self.saved] {
            poison(context, tensor);
        }
        let mut steps = vec![self.bind(context, kernels, op, first)?];
        if op == BenchOp::TrainBackward {
            steps.insert(0, self.bind(context, kernels, BenchOp::TrainForward, first)?);
        }
        scoped(context, || {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                steps.iter().for_each(|step| step.record_in(&mut pass, 0));
            }
            context.queue().submit([encoder.finish()]);
        })?;
        let download =
            |tensor: &Tensor| context.block_on(context.download(tensor)).map_err(|error| error.to_string());
        // One of the two values per channel.
        let part = |values: &[f32], part: usize| values.iter().skip(part).step_by(2).copied().collect();
        let (name, result) = if op.is_forward() { ("y", &first[0].y) } else { ("dx", &first[0].dx) };
        let parts = context.block_on(problem.parts(context, result)).map_err(|error| error.to_string())?;
        let mut results: Results = parts.into_iter().map(|part| (name, part)).collect();
        if op == BenchOp::TrainForward {
            results.push(("save_invstd", part(&download(&self.saved)?, 1)));
        }
        if !op.is_forward() {
            let gradients = download(&self.gradients)?;
            results.extend([("dweight", part(&gradients, 0)), ("dbias", part(&gradients, 1))]);
        }
        hold(problem, &results, factor(self.view))
    }
}

/// Whether it is batch norm with nothing fused.
fn is_plain(spec: &Spec) -> bool {
    let fused = spec.residual || spec.in_place || spec.int8.is_some() || spec.activation != Activation::None;
    spec.norm.is_batch() && spec.dtype == DType::F32 && !fused
}

fn is_wide(view: Channels) -> bool {
    view.inner.is_multiple_of(4)
}

/// Words of one run.
fn words(view: Channels) -> u64 {
    if is_wide(view) { view.inner / 4 } else { view.inner }
}

/// Invocations that share a run: as many as it keeps busy.
fn lanes(view: Channels) -> u64 {
    words(view).next_power_of_two().min(SIZE)
}

/// Loop iterations of one invocation at the most. As lavapipe counts them: a loop's last test is one too, and nested
/// loops add up.
fn iterations(view: Channels, op: BenchOp) -> u64 {
    let passes = if op.is_frozen() { 1 } else { 2 };
    let tree = 7;
    let samples = view.samples.div_ceil(SIZE / lanes(view));
    passes * (samples * (words(view).div_ceil(lanes(view)) + 2) + 1) + tree
}

/// How many times the crate's bounds the baseline may be off. Plain f32 sums are less accurate than trees of short ones,
/// by about the root of their length: with the longest loops of lavapipe the worst was 1.0 of the bounds (Mesa 22.3.6,
/// 2026-11-21).
fn factor(view: Channels) -> f64 {
    4.0 * (iterations(view, BenchOp::Inference) as f64 / 16384.0).max(1.0).sqrt()
}

fn weight_of_new(options: &BatchNormOptions) -> f32 {
    match options.momentum {
        Momentum::WeightOfNew(weight) => weight as f32,
        Momentum::WeightOfOld(weight) => 1.0 - weight as f32,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn view(samples: u64, channels: u64, inner: u64) -> Channels {
        Channels { samples, channels, inner, layout: Layout::ChannelsFirst }
    }

    #[test]
    fn short_runs_share_a_workgroup() {
        assert_eq!((lanes(view(8, 3, 1)), lanes(view(8, 3, 12)), lanes(view(8, 3, 49))), (1, 4, 64));
        assert_eq!(lanes(view(8, 3, 12544)), 64);
    }

    #[test]
    fn a_walk_is_as_long_as_its_loops_add_up_to() {
        // 8 samples, of 3136 words 49 per lane.
        assert_eq!(iterations(view(8, 64, 12544), BenchOp::Inference), 8 * (49 + 2) + 1 + 7);
        assert_eq!(iterations(view(8, 64, 12544), BenchOp::TrainForward), 2 * (8 * (49 + 2) + 1) + 7);
    }
}
