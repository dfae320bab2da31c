//! What a device can do, as far as the policy cares.

use super::hardware::Hardware;
use crate::base::error::{Error, Result};

/// The limits of a device that decide how a problem is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether the adapter is a CPU (lavapipe, WARP): few threads, a cache instead of on-chip memory.
    pub cpu: bool,
    /// Invocations of one workgroup.
    pub max_workgroup_size: u32,
    /// Invocations of the smallest subgroup, where kernels may use subgroups and these have eight or more: on Vulkan and DirectX 12, also where compilers choose among
    /// several sizes; not on Metal, nor on the web with wgpu.
    pub subgroup_size: Option<u32>,
    /// Whether a device that is only planned for is taken to have exact built-in conversions of binary16 (a [probe](crate::recipe::Probe) tells). One that is there is asked.
    pub exact_f16: bool,
    /// Bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    /// Workgroups of one dispatch in each dimension.
    pub max_workgroups_per_dimension: u32,
    /// Bytes of one binding. At most 2^31 − 1 on Vulkan and DX12, whatever the adapter reports.
    pub max_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Granularity of binding offsets in bytes.
    pub storage_alignment: u64,
    /// Loop iterations, summed over all loops, after which an invocation may be ended silently.
    ///
    /// lavapipe stops at 65535 (Mesa 22.3.6: a loop of 65536 runs 65535 times, nested loops add up); a longer
    /// walk would give a wrong number without any error. No other adapter is known to stop; they are held to
    /// 2^22, seconds of work, for the watchdogs of drivers.
    pub max_loop_iterations: u64,
    /// How wide a GPU is, as far as its name tells.
    pub hardware: Hardware,
}

impl Capabilities {
    /// What WebGPU guarantees of every device.
    ///
    /// ```
    /// use wgnorm::tuning::Capabilities;
    /// let mut capabilities = Capabilities::webgpu();
    /// capabilities.storage_alignment = 32;
    /// ```
    pub const fn webgpu() -> Self {
        Self {
            cpu: false,
            max_workgroup_size: 256,
            subgroup_size: None,
            exact_f16: false,
            max_workgroup_bytes: 16384,
            max_workgroups_per_dimension: 65535,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            storage_alignment: 256,
            max_loop_iterations: Self::loop_iterations(false),
            hardware: Hardware::UNKNOWN,
        }
    }

    /// [`max_loop_iterations`](Self#structfield.max_loop_iterations) of an adapter that is a CPU, or is not.
    ///
    /// ```
    /// use wgnorm::tuning::Capabilities;
    /// assert!(Capabilities::loop_iterations(true) < Capabilities::webgpu().max_loop_iterations);
    /// ```
    pub const fn loop_iterations(cpu: bool) -> u64 {
        if cpu { 65535 } else { 1 << 22 }
    }

    /// Storage buffers that a kernel may use: what WebGPU guarantees.
    pub(crate) const STORAGE_BUFFERS: u32 = 8;

    /// # Errors
    /// [`Error::MissingCapability`] if the kernels cannot run within these limits.
    #[cfg(feature = "wgpu")]
    pub(crate) fn new(
        limits: &wgpu::Limits,
        features: wgpu::Features,
        info: &wgpu::AdapterInfo,
    ) -> Result<Self> {
        let cpu = info.device_type == wgpu::DeviceType::Cpu;
        let capabilities = Self {
            cpu,
            max_workgroup_size: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            // Eight members of a team are merged at once, wherever in a subgroup they are.
            subgroup_size: Some(info.subgroup_min_size).filter(|&size| {
                features.contains(wgpu::Features::SUBGROUP) && size >= 8 && size.is_power_of_two()
            }),
            exact_f16: false,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_binding_bytes: limits.max_storage_buffer_binding_size.min((1 << 31) - 1) & !15,
            max_buffer_bytes: limits.max_buffer_size,
            storage_alignment: u64::from(limits.min_storage_buffer_offset_alignment).max(16),
            max_loop_iterations: Self::loop_iterations(cpu),
            hardware: Hardware::named(info.vendor, &info.name).unwrap_or(match info.device_type {
                wgpu::DeviceType::IntegratedGpu => Hardware::INTEGRATED,
                _ => Hardware::UNKNOWN,
            }),
        };
        let (what, needed) = ("max_storage_buffers_per_shader_stage", u64::from(Self::STORAGE_BUFFERS));
        let got = u64::from(limits.max_storage_buffers_per_shader_stage);
        if got < needed {
            return Err(Error::MissingCapability { what, needed, got });
        }
        capabilities.check()?;
        Ok(capabilities)
    }

    /// Requires what every kernel needs.
    ///
    /// # Errors
    /// [`Error::MissingCapability`].
    pub(crate) fn check(&self) -> Result<()> {
        let alignment = if self.storage_alignment.is_power_of_two() { self.storage_alignment } else { 0 };
        let needs: [(&'static str, u64, u64); 6] = [
            ("max_compute_invocations_per_workgroup", 32, self.max_workgroup_size.into()),
            ("max_compute_workgroup_storage_size", 32 * 24, self.max_workgroup_bytes.into()),
            ("max_compute_workgroups_per_dimension", 1024, self.max_workgroups_per_dimension.into()),
            ("max_storage_buffer_binding_size", 1 << 20, self.max_binding_bytes),
            ("power of two as min_storage_buffer_offset_alignment", 16, alignment),
            ("loop limit", 32768, self.max_loop_iterations),
        ];
        for (what, needed, got) in needs {
            if got < needed {
                return Err(Error::MissingCapability { what, needed, got });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod table {
    //! Adapters whose limits are written down, for tests of the policy without a GPU.

    use super::super::hardware::Hardware;
    use super::Capabilities;

    /// WebGPU's guaranteed defaults.
    pub const WEBGPU: Capabilities = Capabilities::webgpu();

    /// The largest binding that Vulkan and DX12 allow, in whole words.
    const TWO_GIB: u64 = ((1 << 31) - 1) & !15;

    /// Mesa 22.3.6 llvmpipe.
    pub const LAVAPIPE: Capabilities = Capabilities {
        cpu: true,
        max_workgroup_size: 1024,
        subgroup_size: Some(8),
        max_workgroup_bytes: 32768,
        max_buffer_bytes: 2047 << 20,
        storage_alignment: 32,
        max_loop_iterations: 65535,
        ..WEBGPU
    };

    /// Intel Iris Xe, Mesa ANV.
    pub const INTEL: Capabilities = Capabilities {
        hardware: Hardware::INTEGRATED,
        max_workgroup_size: 1024,
        max_workgroup_bytes: 65536,
        max_binding_bytes: TWO_GIB,
        max_buffer_bytes: 4 << 30,
        storage_alignment: 16,
        ..WEBGPU
    };

    /// Apple M1 to M4, Metal.
    pub const APPLE: Capabilities = Capabilities {
        hardware: Hardware::INTEGRATED,
        max_workgroup_size: 1024,
        max_workgroup_bytes: 32768,
        max_binding_bytes: TWO_GIB,
        max_buffer_bytes: 8 << 30,
        storage_alignment: 16,
        ..WEBGPU
    };

    /// NVIDIA RTX 30 and 40 series, Vulkan.
    pub const RTX: Capabilities = Capabilities {
        max_workgroup_size: 1024,
        subgroup_size: Some(32),
        max_workgroup_bytes: 49152,
        max_binding_bytes: TWO_GIB,
        max_buffer_bytes: 1 << 40,
        storage_alignment: 16,
        ..WEBGPU
    };

    /// NVIDIA H200, Vulkan: the limits of its smaller siblings, and ten times their width.
    pub const H200: Capabilities =
        Capabilities { hardware: Hardware { units: 132, ..Hardware::UNKNOWN }, ..RTX };

    /// All of them by name.
    pub const ALL: [(&str, Capabilities); 6] = [
        ("webgpu", WEBGPU),
        ("lavapipe", LAVAPIPE),
        ("intel", INTEL),
        ("apple", APPLE),
        ("rtx", RTX),
        ("h200", H200),
    ];
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;

    fn info() -> wgpu::AdapterInfo {
        wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan)
    }

    #[test]
    fn webgpu_defaults_are_enough() {
        assert_eq!(
            Capabilities::new(&wgpu::Limits::default(), wgpu::Features::empty(), &info()).unwrap(),
            table::WEBGPU
        );
    }

    #[test]
    fn webgl_is_refused_with_the_limit() {
        let refused =
            Capabilities::new(&wgpu::Limits::downlevel_webgl2_defaults(), wgpu::Features::empty(), &info());
        assert_eq!(
            refused,
            Err(Error::MissingCapability { what: "max_storage_buffers_per_shader_stage", needed: 8, got: 0 })
        );
    }
}
