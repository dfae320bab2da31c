//! A function of x in the place of the normalization: the map, the reduction and the folds of batch norm through frozen statistics,
//! with other files (shaders/curve/), and one fold more, for what all channels have in common.

use crate::error::{Error, Result};
use crate::gpu::dispatch::Build;
use crate::gpu::shader::{Kernel, StatisticsFrom};
use crate::gpu::slot::Slot;
use crate::ops::fold;
use crate::plan::{CURVE_SUMS_BYTES, Capabilities, Plan, Tuning, plan_per_slice};

/// Bytes of `FoldedRecord` in shaders/curve/statistics.wgsl.
const FOLDED_BYTES: u64 = 16;

/// Dispatches the gradient sums of x and dy into scratch, and dx on the way if `dx`.
pub(crate) fn gradients(build: &mut Build<'_>, parameters: StatisticsFrom, dx: bool) {
    let partials = u64::from(build.plan().records) * u64::from(build.plan().splits);
    build.scratch(partials * CURVE_SUMS_BYTES);
    build.dispatch(Kernel::ReduceGradients { statistics: parameters, dx });
}

/// Dispatches the fold of partial gradient sums into dgamma and dbeta, and if `of_all`, that of all channels into dalpha and
/// dshift.
pub(crate) async fn fold(build: &mut Build<'_>, of_all: bool) -> Result<()> {
    let Plan { slices, dtype, .. } = *build.plan();
    let context = build.context();
    let bytes = u64::from(slices) * CURVE_SUMS_BYTES;
    let totals = context.create_buffer("totals", bytes, wgpu::BufferUsages::STORAGE).await?;
    build.buffer(Slot::Total, &totals);
    fold::team_per_slice(build, Kernel::FoldCurve)?;
    if of_all {
        let capabilities = context.capabilities();
        let team = (team_of_all(slices, capabilities)?, 0);
        let plan = plan_per_slice(1, slices, team, dtype, capabilities, &Tuning::default())?;
        // The channels are partial results of one slice.
        build.dispatch_over(Kernel::FoldAlpha, Plan { records: slices, ..plan });
    }
    Ok(())
}

/// Invocations that sum the totals of all channels: a workgroup of the usual size, or as many as keep within the loop limit.
fn team_of_all(channels: u32, capabilities: &Capabilities) -> Result<u32> {
    let (usual, most) =
        (if capabilities.cpu { 8 } else { 256 }, 1 << capabilities.max_workgroup_size.ilog2());
    // An iteration for each, and one for each group of them.
    let per_invocation = capabilities.max_loop_iterations / 2;
    let needed = u64::from(channels).div_ceil(per_invocation).next_power_of_two();
    if needed > most {
        return Err(Error::TooLarge {
            what: "the fold of dalpha and dshift",
            needed: channels.into(),
            unit: "channels",
            limit_name: "loop limit of a workgroup",
            limit: per_invocation * most,
        });
    }
    Ok(needed.max(usual).min(most) as u32)
}

/// Dispatches the fold of all parameters into one buffer, and lets later dispatches read them from there.
pub(crate) async fn parameters(build: &mut Build<'_>) -> Result<()> {
    let context = build.context();
    let Plan { slices, dtype, .. } = *build.plan();
    let plan = plan_per_slice(slices.into(), 1, (1, 0), dtype, context.capabilities(), context.tuning())?;
    let bytes = u64::from(slices) * FOLDED_BYTES;
    let folded = context.create_buffer("folded parameters", bytes, wgpu::BufferUsages::STORAGE).await?;
    build.buffer(Slot::SavedOut, &folded);
    build.buffer(Slot::Saved, &folded);
    build.dispatch_over(Kernel::FoldParameters, plan);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shader;

    #[test]
    fn a_team_for_any_number_of_channels() {
        let team = |channels, device| {
            let info = wgpu::AdapterInfo::new(device, wgpu::Backend::Vulkan);
            let capabilities = Capabilities::new(&wgpu::Limits::default(), wgpu::Features::empty(), &info);
            team_of_all(channels, &capabilities.unwrap())
        };
        let (cpu, gpu) = (wgpu::DeviceType::Cpu, wgpu::DeviceType::DiscreteGpu);
        assert_eq!((team(1, cpu), team(1 << 20, cpu)), (Ok(8), Ok(64)));
        assert_eq!((team(1, gpu), team(1 << 20, gpu)), (Ok(256), Ok(256)));
        for (device, most) in [(cpu, 256 * 32767), (gpu, 256 << 21)] {
            assert_eq!(team(most, device), Ok(256));
            assert!(matches!(team(most + 1, device), Err(Error::TooLarge { .. })));
        }
    }

    #[test]
    fn records_have_the_same_size_in_rust_and_wgsl() {
        let size = |source: &shader::Source, name| {
            let stat = "alias Stat = f32; alias Word = f32;
                fn component(stat: Stat, k: u32) -> f32 { return stat; }
                fn with_component(stat: Stat, k: u32, value: f32) -> Stat { return value; }";
            let module = naga::front::wgsl::parse_str(&format!("{stat}\n{}", source.text)).unwrap();
            shader::reflect::struct_layout(&module, name).0 as u64
        };
        assert_eq!(size(&shader::CURVE_SUMS, "GradientSumsRecord"), CURVE_SUMS_BYTES);
        assert_eq!(size(&shader::CURVE_STATISTICS, "FoldedRecord"), FOLDED_BYTES);
    }
}
