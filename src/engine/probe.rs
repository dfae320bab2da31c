//! What a device does where WGSL leaves it open: found out by a kernel, once per context.

use std::sync::OnceLock;

#[cfg(feature = "wgpu")]
use super::buffer::Buffer;
#[cfg(feature = "wgpu")]
use super::readback;
#[cfg(feature = "wgpu")]
use super::scope::scoped;
use super::shader::modules::package;
#[cfg(feature = "wgpu")]
use crate::base::error::Error;
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::plan::Capabilities;
use crate::wesl::Choice;

/// What has been found out.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    exact_f16: OnceLock<bool>,
    ordered_subgroups: OnceLock<bool>,
    /// What was wrong in a trial of the driver (`pass/trial.rs`), and whether there must be one.
    pub trial: OnceLock<Option<String>>,
    pub distrusts: bool,
}

impl Probes {
    /// What is taken to be found out on a device that is not there: its subgroups are in order if it has any, and conversions are its own if they are said to be exact.
    pub fn assumed(capabilities: &Capabilities) -> Self {
        Self {
            exact_f16: capabilities.exact_f16.into(),
            ordered_subgroups: capabilities.subgroup_size.is_some().into(),
            ..Self::default()
        }
    }

    /// Nothing yet of a device, whose results are tried first if it is one of OpenGL.
    #[cfg(feature = "wgpu")]
    pub fn of_backend(backend: wgpu::Backend) -> Self {
        Self { distrusts: backend == wgpu::Backend::Gl, ..Self::default() }
    }
}

/// A kernel that binds one buffer, in which it counts differences from what is expected.
#[derive(Debug)]
pub(crate) struct Probe {
    pub entry: &'static str,
    pub wgsl: String,
    pub constants: Vec<(&'static str, f64)>,
    pub workgroups: u32,
}

impl Probe {
    fn new(module: &str, entry: &'static str, constants: &[(&'static str, f64)], workgroups: u32) -> Self {
        // Of these kernels there are no variants.
        let linked = package().link(module, &Choice::default());
        let wgsl = linked.unwrap_or_else(|error| panic!("{error}")).text;
        Self { entry, wgsl, constants: constants.to_vec(), workgroups }
    }

    /// Whether the built-in conversions of binary16 round to the nearest even, overflow to infinity and keep subnormal numbers,
    /// infinities and NaN, as those of shaders/lib/f16.wesl do.
    pub fn of_f16() -> Self {
        Self::new("probe/f16", "probe_f16", &[], 65536 / 64)
    }

    /// Whether subgroups are no smaller than the device says, and the invocations of a workgroup are in them in their order
    /// (shaders/probe/subgroups.wesl): in the smallest workgroups that the policy takes, and large ones. None if it has no subgroups.
    pub fn of_subgroups(capabilities: &Capabilities) -> Vec<Self> {
        let Some(size) = capabilities.subgroup_size else { return Vec::new() };
        let of = |workgroup: u32| {
            // A workgroup that is less than a subgroup has but one.
            let constants = [("WORKGROUP_SIZE", f64::from(workgroup)), ("SUBGROUP_SIZE", f64::from(size))];
            Self::new("probe/subgroups", "probe_subgroups", &constants, 4)
        };
        [capabilities.max_workgroup_size.min(256), 32, 8].map(of).into()
    }
}

/// Whether the built-in conversions of binary16 are exact.
pub(crate) async fn has_exact_f16(context: &Context) -> Result<bool> {
    let known = &context.probes().exact_f16;
    if let Some(&known) = known.get() {
        return Ok(known);
    }
    let found = finds_no_difference(context, Probe::of_f16()).await?;
    Ok(*known.get_or_init(|| found))
}

/// Whether kernels use them.
pub(crate) async fn packs_f16(context: &Context) -> Result<bool> {
    Ok(!context.tuning().integer_f16 && has_exact_f16(context).await?)
}

/// Whether there are subgroups, with the invocations of a workgroup in their order.
pub(crate) async fn has_ordered_subgroups(context: &Context) -> Result<bool> {
    let known = &context.probes().ordered_subgroups;
    if let Some(&known) = known.get() {
        return Ok(known);
    }
    let probes = Probe::of_subgroups(context.capabilities());
    let mut same = !probes.is_empty();
    for probe in probes {
        same = same && finds_no_difference(context, probe).await?;
    }
    Ok(*known.get_or_init(|| same))
}

/// There is no device that could be asked; what it does is [assumed](Probes::assumed).
#[cfg(not(feature = "wgpu"))]
async fn finds_no_difference(_: &Context, _: Probe) -> Result<bool> {
    Ok(false)
}

/// Runs a kernel that counts differences from what is expected; a device that cannot run it differs.
#[cfg(feature = "wgpu")]
async fn finds_no_difference(context: &Context, probe: Probe) -> Result<bool> {
    let Probe { entry, wgsl, constants, workgroups } = probe;
    match run_over(context, entry, wgsl, &constants, workgroups, &[0]).await {
        // A device without these functions.
        Err(Error::Validation { .. }) => Ok(false),
        counted => Ok(counted? == [0]),
    }
}

/// What a kernel that binds one buffer, of these words, makes of them.
#[cfg(feature = "wgpu")]
pub(crate) async fn run_over(
    context: &Context,
    entry: &'static str,
    wgsl: String,
    constants: &[(&str, f64)],
    workgroups: u32,
    words: &[u32],
) -> Result<Vec<u32>> {
    use wgpu::BufferUsages as Usage;
    let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
    let bytes: &[u8] = bytemuck::cast_slice(words);
    let buffer = context.create_gpu_buffer("the words of a probe", bytes.len() as u64, usage).await?;
    scoped(context, entry, || {
        let device = context.device();
        context.queue().write_buffer(&buffer, 0, bytes);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(entry),
            source: wgpu::ShaderSource::Wgsl(wgsl.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions { constants, ..Default::default() },
            cache: context.disk_cache().wgpu(),
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(entry),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bindings, &[]);
        pass.dispatch_workgroups(workgroups, 1, 1);
        drop(pass);
        context.queue().submit([encoder.finish()]);
    })
    .await?;
    let found = readback::read(context, &Buffer::own(buffer), 0, bytes.len() as u64).await?;
    Ok(bytemuck::pod_collect_to_vec(&found))
}
