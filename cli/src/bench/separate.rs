//! The baseline of what is fused: the crate's plain operation, and activation and residual in a pass of their own
//! (separate.wgsl). Its results are held against the reference too.
//!
//! Forward: y by the plain operation, then y = act(y + residual) over it. Backward: dz from the y that forward has
//! stored, then the plain operation on dz.

use std::collections::HashMap;

use wgnorm::{
    Activation, BatchNorm, Context, DType, FrozenBatchNorm, GradientTargets, Result, RunningStatistics,
    Saved, Tensor,
};

use super::BenchOp;
use super::case::{Operation, Set};
use super::data::{Data, OPTIONS};
use super::measure::scoped;
use super::variant::Variant;

/// Invocations of a workgroup, each with a word: `SIZE` of separate.wgsl.
const SIZE: u64 = 64;

/// The compiled elementwise kernels, by entry point.
#[derive(Default)]
pub struct Kernels {
    compiled: HashMap<&'static str, wgpu::ComputePipeline>,
}

/// The baseline of one shape: layers that fuse nothing.
pub struct Separate {
    variant: Variant,
    workgroups: [u32; 2],
    layer: BatchNorm,
    frozen: FrozenBatchNorm,
    saved: Saved,
    params: wgpu::Buffer,
}

/// One operation and its elementwise pass, bound to every set of tensors.
pub struct Bound {
    plain: Vec<Operation>,
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
    /// The baseline for a shape; `None` where there is none.
    pub async fn new(
        context: &Context,
        data: &Data,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
    ) -> Result<Option<Self>> {
        let elements = data.view.elements();
        if entry(data.variant, true).is_none() || !elements.is_multiple_of(4) {
            return Ok(None);
        }
        let (words, widest) = (elements / 4, context.capabilities().max_workgroups_per_dimension);
        let running = async || RunningStatistics::upload(context, &data.running).await;
        let (g, b) = (Some(gamma.clone()), Some(beta.clone()));
        Ok(Some(Self {
            variant: data.variant,
            workgroups: grid(words.div_ceil(SIZE), widest.into()),
            layer: BatchNorm::from_parts(context, OPTIONS, g.clone(), b.clone(), running().await?)?,
            frozen: FrozenBatchNorm::from_parts(context, OPTIONS, g, b, running().await?)?,
            saved: Saved::new(context, x).await?,
            params: params(context, words),
        }))
    }

    /// The layer that recording takes.
    pub fn layer(&mut self) -> &mut BatchNorm {
        &mut self.layer
    }

    /// inv_std of the last training forward pass.
    pub async fn inv_std(&self, context: &Context) -> Result<Vec<f32>> {
        Ok(self.saved.download(context).await?.iter().map(|saved| saved.inv_std).collect())
    }

    /// Binds an operation to sets of tensors.
    pub fn bind(
        &mut self,
        context: &Context,
        kernels: &mut Kernels,
        op: BenchOp,
        sets: &[Set],
        [dgamma, dbeta]: [&Tensor; 2],
    ) -> Result<Bound, String> {
        let entry = entry(self.variant, op.is_forward()).ok_or("there is no separate baseline")?;
        let pipeline = kernels.get(context, entry)?;
        let plain = async |set: &Set| -> Result<Operation> {
            let dz = set.dz.as_ref().unwrap_or(&set.dy);
            let targets = GradientTargets {
                dx: Some(&set.dx),
                dgamma: Some(dgamma),
                dbeta: Some(dbeta),
                ..Default::default()
            };
            let (layer, frozen) = (&mut self.layer, &self.frozen);
            Ok(match op {
                BenchOp::TrainForward => {
                    Operation::Train(layer.prepare_train_forward(&set.x, &set.y, Some(&self.saved)).await?)
                }
                BenchOp::TrainBackward => {
                    Operation::Other(layer.prepare_backward(&set.x, dz, &self.saved, &targets).await?)
                }
                BenchOp::Inference => Operation::Other(frozen.prepare_forward(&set.x, &set.y).await?),
                BenchOp::FrozenBackward => {
                    Operation::Other(frozen.prepare_backward(&set.x, dz, &targets).await?)
                }
            })
        };
        let mut plain = plain;
        let plain = context.block_on(async {
            let mut operations = Vec::new();
            for set in sets {
                operations.push(plain(set).await?);
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
    pub fn record_in(&self, layer: &mut BatchNorm, pass: &mut wgpu::ComputePass<'_>, set: usize) {
        if self.is_forward {
            self.plain[set].record_in(layer, pass);
        }
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.groups[set], &[]);
        let [width, height] = self.workgroups;
        pass.dispatch_workgroups(width, height, 1);
        if !self.is_forward {
            self.plain[set].record_in(layer, pass);
        }
    }
}

/// The elementwise kernel of a variant, if there is one.
fn entry(variant: Variant, is_forward: bool) -> Option<&'static str> {
    if variant.dtype != DType::F32 || variant.in_place {
        return None;
    }
    match (variant.activation, variant.residual, is_forward) {
        (Activation::None, true, true) => Some("add"),
        (Activation::None, true, false) => Some("add_backward"),
        (Activation::Relu, false, true) => Some("relu"),
        (Activation::Relu, true, true) => Some("add_relu"),
        (Activation::Relu, _, false) => Some("relu_backward"),
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
        let relu = Variant { activation: Activation::Relu, ..Default::default() };
        assert_eq!((entry(relu, true), entry(relu, false)), (Some("relu"), Some("relu_backward")));
        let added = Variant { residual: true, ..Default::default() };
        assert_eq!((entry(added, true), entry(added, false)), (Some("add"), Some("add_backward")));
        let without = [
            Variant::default(),
            Variant { activation: Activation::Silu, ..relu },
            Variant { dtype: DType::F16, ..relu },
            Variant { in_place: true, ..added },
        ];
        assert!(without.iter().all(|&variant| entry(variant, true).is_none()));
    }
}
