//! The GPUs whose compilers are asked, and what of each an estimate needs.

use crate::isa::Dialect;

/// A GPU that is not here.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    /// For people to read.
    pub what: &'static str,
    /// Mesa's driver, by the name of its manifest.
    pub driver: &'static str,
    /// The shim that plays its kernel driver.
    pub shim: &'static str,
    /// What tells the shim which GPU to be.
    pub environment: &'static [(&'static str, &'static str)],
    pub dialect: Dialect,
    pub device: Device,
}

/// Numbers of a device that runs this code: the largest of its kind, where there are several.
#[derive(Debug)]
pub struct Device {
    /// What the driver counts subgroups of: multiprocessors, SIMD units, execution units, cores.
    pub units: u64,
    /// Bytes per second from memory.
    pub bandwidth: f64,
    /// Seconds from a load to its value, under load. Assumed: 600 to 1000 cycles.
    pub latency: f64,
}

pub const TARGETS: [Target; 9] = [
    Target {
        name: "navi31",
        what: "AMD RDNA 3 (Radeon RX 7900 XTX)",
        driver: "radeon",
        shim: "amdgpu",
        environment: &[("AMDGPU_GPU_ID", "navi31")],
        dialect: Dialect::Amd,
        device: Device { units: 192, bandwidth: 960e9, latency: 700e-9 },
    },
    Target {
        name: "navi21",
        what: "AMD RDNA 2 (Radeon RX 6900 XT)",
        driver: "radeon",
        shim: "amdgpu",
        environment: &[("AMDGPU_GPU_ID", "navi21")],
        dialect: Dialect::Amd,
        device: Device { units: 160, bandwidth: 512e9, latency: 700e-9 },
    },
    Target {
        name: "vega20",
        what: "AMD GCN 5 (Radeon VII)",
        driver: "radeon",
        shim: "amdgpu",
        environment: &[("AMDGPU_GPU_ID", "vega20")],
        dialect: Dialect::Amd,
        device: Device { units: 240, bandwidth: 1024e9, latency: 800e-9 },
    },
    Target {
        name: "gfx1201",
        what: "AMD RDNA 4 (Radeon RX 9070 XT)",
        driver: "radeon",
        shim: "amdgpu",
        environment: &[("AMDGPU_GPU_ID", "gfx1201")],
        dialect: Dialect::Amd,
        device: Device { units: 128, bandwidth: 640e9, latency: 700e-9 },
    },
    Target {
        name: "ga106",
        what: "NVIDIA Ampere, on a device as large as an H100",
        driver: "nouveau",
        shim: "nouveau",
        // NVK checks the bounds of each load by instructions, four for 16 bytes, which NVIDIA's own driver has no need of.
        environment: &[("NOUVEAU_CHIPSET", "176"), ("GPUS_NO_ROBUST", "1")],
        dialect: Dialect::Nvidia,
        device: Device { units: 132, bandwidth: 3350e9, latency: 600e-9 },
    },
    Target {
        name: "agx-m1",
        what: "Apple G13 (M1)",
        driver: "asahi",
        shim: "asahi",
        // Its machine code is no representation of a pipeline; it is printed.
        environment: &[("AGX_MESA_DEBUG", "shaders")],
        dialect: Dialect::Apple,
        device: Device { units: 8, bandwidth: 68e9, latency: 800e-9 },
    },
    Target {
        name: "adreno740",
        what: "Qualcomm Adreno 740",
        driver: "freedreno",
        shim: "freedreno",
        environment: &[("FD_GPU_ID", "740")],
        dialect: Dialect::Adreno,
        device: Device { units: 6, bandwidth: 67e9, latency: 800e-9 },
    },
    Target {
        name: "dg2",
        what: "Intel Xe-HPG (Arc A770)",
        driver: "intel",
        shim: "intel",
        environment: &[("INTEL_STUB_GPU_PLATFORM", "dg2")],
        dialect: Dialect::Intel,
        device: Device { units: 512, bandwidth: 560e9, latency: 800e-9 },
    },
    Target {
        name: "tgl",
        what: "Intel Xe-LP (Iris Xe)",
        driver: "intel",
        shim: "intel",
        environment: &[("INTEL_STUB_GPU_PLATFORM", "tgl")],
        dialect: Dialect::Intel,
        device: Device { units: 96, bandwidth: 68e9, latency: 800e-9 },
    },
];
