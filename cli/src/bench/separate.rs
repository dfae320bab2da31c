//! The baseline of what is fused: the crate's plain operation, and activation and residual in a pass of their own
//! (separate.wgsl). Its results are held against the reference too.
//!
//! Forward: y by the plain operation, then y = act(y + residual) over it. Backward: dz from the y that forward has
//! stored, then the plain operation on dz.

use std::collections::HashMap;

use wgnorm::eval::{Layer, Parameters};
use wgnorm::{Activation, Context, DType, GradientTargets, Result, Saved, Spec, Tensor, Train, TrainForward};

use super::BenchOp;
use super::case::record;
use super::measure::scoped;
use super::tensors::Set;

/// Invocations of a workgroup, each with a word: `SIZE` of separate.wgsl.
const SIZE: u64 = 64;

/// The compiled elementwise kernels, by entry point.
#[derive(Default)]
pub struct Kernels {
    compiled: HashMap<&'static str, wgpu::ComputePipeline>,
}

/// The baseline of one problem: a layer that fuses nothing.
pub struct Separate {
    pub layer: Layer,
    pub saved: Saved,
    entries: [&'static str; 2],
    workgroups: [u32; 2],
    params: wgpu::Buffer,
}

/// One operation and its elementwise pass, bound to every set of tensors.
pub struct Bound {
    plain: Vec<TrainForward>,
    pipeline: wgpu::ComputePipeline,
    groups: Vec<wgpu::BindGroup>,
    workgroups: [u32; 2],
    is_forward: bool,
}

impl Kernels {
    fn get(&mut self, context: &Context, entry: &'static str) -> Result<wgpu::ComputePipeline, String> {
        if let Some(compiled) = self.compiled.get(entry) {
            return Ok(compiled.clone());
        }
        let compiled = scoped(context, || {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some("separate"),
                source: wgpu::ShaderSource::Wgsl(include_str!("separate.wgsl").into()),
            };
            // SAFETY: every index is below the number of words, the length of all tensors that are bound; there are no
            // loops. With checks it would be an unfair baseline.
            let module = unsafe {
                context
                    .device()
                    .create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            };
            context.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("separate"),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: Default::default(),
                cache: None,
            })
        })?;
        Ok(self.compiled.entry(entry).or_insert(compiled).clone())
    }
}

impl Separate {
    /// Whether there is one: where dz is computed separately.
    pub fn is_of(spec: &Spec) -> bool {
        entries(spec).is_some()
    }

    /// The baseline for a problem; `None` where there is none.
    pub async fn new(
        context: &Context,
        spec: &Spec,
        parameters: Parameters,
        x: &Tensor,
    ) -> Result<Option<Self>> {
        let elements = spec.elements() as u64;
        let Some(entries) = entries(spec).filter(|_| elements.is_multiple_of(4)) else { return Ok(None) };
        let (words, widest) = (elements / 4, context.capabilities().max_workgroups_per_dimension);
        let mut plain = spec.clone();
        (plain.activation, plain.residual) = (Activation::None, false);
        let layer = Layer::new(context, &plain, parameters).await?;
        Ok(Some(Self {
            saved: layer.room_for(x).await?,
            layer,
            entries,
            workgroups: grid(words.div_ceil(SIZE), widest.into()),
            params: params(context, words),
        }))
    }

    /// Binds an operation to sets of tensors.
    pub fn bind(
        &mut self,
        context: &Context,
        kernels: &mut Kernels,
        op: BenchOp,
        sets: &[Set],
        [dgamma, dbeta, ..]: &[Option<Tensor>; 4],
    ) -> Result<Bound, String> {
        let entry = self.entries[usize::from(!op.is_forward())];
        let pipeline = kernels.get(context, entry)?;
        let (layer, saved) = (&mut self.layer, &self.saved);
        let plain = context.block_on(async {
            let mut operations = Vec::new();
            for set in sets {
                let dz = set.dz.as_ref().unwrap_or(&set.dy);
                let (dx, dgamma, dbeta) = (Some(&set.dx), dgamma.as_ref(), dbeta.as_ref());
                let targets = GradientTargets::default().dx(dx).dgamma(dgamma).dbeta(dbeta);
                operations.push(match op.is_forward() {
                    true => layer.prepare_train_forward(&set.x, &set.y, Some(saved)).await?,
                    false => layer.prepare_backward(&set.x, dz, saved, &targets).await?.into(),
                });
            }
            Ok(operations)
        });
        let groups = scoped(context, || {
            let layout = pipeline.get_bind_group_layout(0);
            sets.iter().map(|set| group(context, &layout, &self.params, entry, set)).collect()
        })?;
        Ok(Bound {
            plain: plain.map_err(|error: wgnorm::Error| error.to_string())?,
            pipeline,
            groups,
            workgroups: self.workgroups,
            is_forward: op.is_forward(),
        })
    }
}

impl Bound {
    pub fn record_in(&self, layer: &mut Layer, pass: &mut wgpu::ComputePass<'_>, set: usize) {
        if self.is_forward {
            record(layer, &self.plain[set], pass);
        }
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.groups[set], &[]);
        let [width, height] = self.workgroups;
        pass.dispatch_workgroups(width, height, 1);
        if !self.is_forward {
            record(layer, &self.plain[set], pass);
        }
    }
}

/// The elementwise kernels of a problem, forward and backward, if there are any.
fn entries(spec: &Spec) -> Option<[&'static str; 2]> {
    if !spec.norm.is_batch() || spec.dtype != DType::F32 || spec.in_place {
        return None;
    }
    match (spec.activation, spec.residual) {
        (Activation::None, true) => Some(["add", "add_backward"]),
        (Activation::Relu, false) => Some(["relu", "relu_backward"]),
        (Activation::Relu, true) => Some(["add_relu", "relu_backward"]),
        _ => None,
    }
}

/// Rows of workgroups, none of them wider than it may be.
fn grid(workgroups: u64, widest: u64) -> [u32; 2] {
    let height = workgroups.div_ceil(widest);
    [workgroups.div_ceil(height) as u32, height as u32]
}

fn params(context: &Context, words: u64) -> wgpu::Buffer {
    let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("separate"),
        size: 16,
        usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    context.queue().write_buffer(&buffer, 0, bytemuck::bytes_of(&[words as u32, 0, 0, 0]));
    buffer
}

fn group(
    context: &Context,
    layout: &wgpu::BindGroupLayout,
    params: &wgpu::Buffer,
    entry: &str,
    set: &Set,
) -> wgpu::BindGroup {
    let tensors = [(1, Some(&set.y)), (2, set.residual.as_ref()), (3, Some(&set.dy)), (4, set.dz.as_ref())];
    let bound: &[u32] = match entry {
        "add" | "add_relu" => &[1, 2],
        "relu" => &[1],
        "relu_backward" => &[1, 3, 4],
        _ => &[3, 4],
    };
    let tensors =
        tensors.into_iter().filter(|(binding, _)| bound.contains(binding)).filter_map(|(binding, tensor)| {
            Some(wgpu::BindGroupEntry { binding, resource: tensor?.buffer().as_entire_binding() })
        });
    let params = wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() };
    context.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("separate"),
        layout,
        entries: &[params].into_iter().chain(tensors).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_all_workgroups() {
        assert_eq!((grid(1, 65535), grid(65535, 65535)), ([1, 1], [65535, 1]));
        assert_eq!((grid(65536, 65535), grid(200_001, 65535)), ([32768, 2], [50001, 4]));
    }

    #[test]
    fn only_f32_with_relu_or_a_residual_has_a_baseline() {
        let of = |line: &str| entries(&line.parse().unwrap());
        assert_eq!(of("batch 2x4 relu"), Some(["relu", "relu_backward"]));
        assert_eq!(of("frozen 2x4 residual"), Some(["add", "add_backward"]));
        for without in ["batch 2x4", "batch 2x4 silu", "batch 2x4 f16 relu", "batch 2x4 in_place residual"] {
            assert_eq!(of(without), None, "{without}");
        }
        assert_eq!(of("layer 2x4 relu"), None);
    }
}
