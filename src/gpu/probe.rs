//! What a device does where WGSL leaves it open: found out by a kernel, once per context.

use super::dispatch::scoped;
use super::readback;
use super::shader::{F16, PROBE_F16};
use crate::context::Context;
use crate::error::{Error, Result};

/// Whether the built-in conversions of binary16 round to the nearest even, overflow to infinity and keep subnormal numbers,
/// infinities and NaN, as those of shaders/lib/f16.wgsl do.
pub(crate) async fn has_exact_f16(context: &Context) -> Result<bool> {
    if let Some(&known) = context.known_f16().get() {
        return Ok(known);
    }
    let found = probe_f16(context).await?;
    Ok(*context.known_f16().get_or_init(|| found))
}

/// Whether kernels use them.
pub(crate) async fn packs_f16(context: &Context) -> Result<bool> {
    Ok(!context.tuning().integer_f16 && has_exact_f16(context).await?)
}

async fn probe_f16(context: &Context) -> Result<bool> {
    use wgpu::BufferUsages as Usage;
    let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
    let differences = context.create_buffer("the counter of a probe", 4, usage).await?;
    let ran = scoped(context, "the probe of binary16", || {
        let device = context.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("probe_f16"),
            source: wgpu::ShaderSource::Wgsl((F16.text.to_owned() + PROBE_F16.text).into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("probe_f16"),
            layout: None,
            module: &module,
            entry_point: Some("probe_f16"),
            compilation_options: Default::default(),
            cache: context.disk_cache().wgpu(),
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("probe_f16"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: differences.as_entire_binding() }],
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(65536 / 64, 1, 1);
        drop(pass);
        context.queue().submit([encoder.finish()]);
    })
    .await;
    match ran {
        // A device without these functions.
        Err(Error::Validation { .. }) => return Ok(false),
        ran => ran?,
    }
    let count = readback::read(context, &differences, 0, 4).await?;
    Ok(count.iter().all(|&byte| byte == 0))
}
