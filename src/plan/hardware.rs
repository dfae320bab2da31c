//! What wgpu does not say of an adapter, and the policy wants to know: how wide it is. By its name, from the data sheets of vendors; else assumed. Nothing is
//! measured: plans, and so the bits of results, must not depend on a stopwatch. What an adapter makes of a plan is measured by autotuning, on request, and
//! then pinned.

/// How wide an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hardware {
    /// What of the adapter's name says so; `None` where it is assumed.
    pub known_as: Option<&'static str>,
    /// Multiprocessors (NVIDIA), compute units (AMD), cores (Apple), Xe cores (Intel): each has a few workgroups of 256 at a time.
    pub units: u32,
    /// Bytes of its last cache.
    pub cache_bytes: u64,
    /// Bandwidth of its memory, in 10^9 bytes.
    pub gigabytes_per_second: u32,
}

const NVIDIA: u32 = 0x10de;
const AMD: u32 = 0x1002;
const INTEL: u32 = 0x8086;
const APPLE: u32 = 0x106b;

/// PCI vendor, a part of the name, units, MB of cache, GB/s; of names that begin alike the longest first.
type Row = (u32, &'static str, u32, u32, u32);

const KNOWN: [Row; 54] = [
    (NVIDIA, "B200", 148, 126, 8000),
    (NVIDIA, "H200", 132, 60, 4800),
    (NVIDIA, "H100", 132, 50, 3350),
    (NVIDIA, "A100", 108, 40, 1555),
    (NVIDIA, "V100", 80, 6, 900),
    (NVIDIA, "L40S", 142, 96, 864),
    (NVIDIA, "L40", 142, 96, 864),
    (NVIDIA, "L4", 58, 48, 300),
    (NVIDIA, "T4", 40, 4, 320),
    (NVIDIA, "RTX 5090", 170, 96, 1792),
    (NVIDIA, "RTX 5080", 84, 64, 960),
    (NVIDIA, "RTX 5070 Ti", 70, 48, 896),
    (NVIDIA, "RTX 5070", 48, 48, 672),
    (NVIDIA, "RTX 4090", 128, 72, 1008),
    (NVIDIA, "RTX 4080", 76, 64, 717),
    (NVIDIA, "RTX 4070 Ti", 60, 48, 504),
    (NVIDIA, "RTX 4070", 46, 36, 504),
    (NVIDIA, "RTX 4060", 24, 24, 272),
    (NVIDIA, "RTX 3090", 82, 6, 936),
    (NVIDIA, "RTX 3080", 68, 5, 760),
    (NVIDIA, "RTX 3070", 46, 4, 448),
    (NVIDIA, "RTX 3060", 28, 3, 360),
    (NVIDIA, "RTX 2080 Ti", 68, 5, 616),
    (AMD, "MI300X", 304, 256, 5300),
    (AMD, "RX 9070 XT", 64, 64, 640),
    (AMD, "RX 7900 XTX", 96, 96, 960),
    (AMD, "RX 7900 XT", 84, 80, 800),
    (AMD, "RX 7800 XT", 60, 64, 624),
    (AMD, "RX 7600", 32, 32, 288),
    (AMD, "RX 6900 XT", 80, 128, 512),
    (AMD, "RX 6800 XT", 72, 128, 512),
    (AMD, "RX 6700 XT", 40, 96, 384),
    (AMD, "RX 6600 XT", 32, 32, 256),
    (AMD, "Radeon VII", 60, 4, 1024),
    (AMD, "780M", 12, 2, 100),
    (INTEL, "B580", 20, 18, 456),
    (INTEL, "A770", 32, 16, 560),
    (INTEL, "A750", 28, 16, 512),
    (INTEL, "Xe Graphics", 6, 4, 68),
    (APPLE, "Apple M1 Ultra", 64, 96, 800),
    (APPLE, "Apple M1 Max", 32, 48, 400),
    (APPLE, "Apple M1 Pro", 16, 24, 200),
    (APPLE, "Apple M1", 8, 8, 68),
    (APPLE, "Apple M2 Ultra", 76, 96, 800),
    (APPLE, "Apple M2 Max", 38, 48, 400),
    (APPLE, "Apple M2 Pro", 19, 24, 200),
    (APPLE, "Apple M2", 10, 8, 100),
    (APPLE, "Apple M3 Ultra", 80, 96, 819),
    (APPLE, "Apple M3 Max", 40, 48, 400),
    (APPLE, "Apple M3 Pro", 18, 12, 150),
    (APPLE, "Apple M3", 10, 8, 100),
    (APPLE, "Apple M4 Max", 40, 48, 546),
    (APPLE, "Apple M4 Pro", 20, 24, 273),
    (APPLE, "Apple M4", 10, 8, 120),
];

impl Hardware {
    /// What is taken for granted of a GPU of which nothing is known: a large one. More workgroups than a small one has room for wait; too few leave a large one idle.
    pub(crate) const UNKNOWN: Self = Self::assumed(128, 16, 500);
    /// Of one that is part of a processor.
    pub(crate) const INTEGRATED: Self = Self::assumed(32, 4, 100);

    const fn assumed(units: u32, megabytes: u64, gigabytes_per_second: u32) -> Self {
        Self { known_as: None, units, cache_bytes: megabytes << 20, gigabytes_per_second }
    }

    /// That of an adapter by its vendor, 0 if that is not said, and name.
    pub(crate) fn named(vendor: u32, name: &str) -> Option<Self> {
        let known = |row: &&Row| (vendor == row.0 || vendor == 0) && has(name, row.1);
        KNOWN.iter().find(known).map(|&(_, known_as, units, megabytes, gigabytes_per_second)| Self {
            known_as: Some(known_as),
            units,
            cache_bytes: u64::from(megabytes) << 20,
            gigabytes_per_second,
        })
    }
}

/// Whether a name has a part as words of its own: `NVIDIA A100-SXM4` has `A100`, and no `A10`.
fn has(name: &str, part: &str) -> bool {
    name.match_indices(part).any(|(at, _)| {
        let (before, after) = (name[..at].chars().next_back(), name[at + part.len()..].chars().next());
        [before, after].iter().flatten().all(|next| !next.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_known_by_their_names() {
        let units = |vendor, name| Hardware::named(vendor, name).map(|hardware| hardware.units);
        assert_eq!(units(NVIDIA, "NVIDIA H200"), Some(132));
        assert_eq!(units(NVIDIA, "NVIDIA A100-SXM4-40GB"), Some(108));
        assert_eq!(units(NVIDIA, "NVIDIA GeForce RTX 4070 Ti"), Some(60));
        assert_eq!(units(NVIDIA, "NVIDIA GeForce RTX 4070"), Some(46));
        assert_eq!(units(AMD, "AMD Radeon RX 7900 XTX (RADV NAVI31)"), Some(96));
        assert_eq!(units(INTEL, "Intel(R) Arc(tm) A770 Graphics (DG2)"), Some(32));
        assert_eq!(units(0, "Apple M1 Pro"), Some(16));
        assert_eq!(units(0, "Apple M1"), Some(8));
        // Another vendor's, a longer name, nothing.
        assert_eq!(units(AMD, "NVIDIA H200"), None);
        assert_eq!(units(NVIDIA, "NVIDIA A1000"), None);
        assert_eq!(units(0, ""), None);
    }

    #[test]
    fn no_row_hides_another() {
        for (number, row) in KNOWN.iter().enumerate() {
            assert_eq!(Hardware::named(row.0, row.1).unwrap().known_as, Some(row.1), "row {number}");
        }
    }
}
