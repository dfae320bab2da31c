//! Reproducible numbers: splitmix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014), as the
//! conformance format defines its procedural inputs, and seeds from names.

/// Pseudo-random numbers in [-1, 1), each exact in f32.
pub fn uniform(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f64 / 8_388_608.0 - 1.0
    })
}

/// A seed from a name (FNV-1a).
pub fn seed_of(name: &str) -> u64 {
    derived(0xCBF2_9CE4_8422_2325, name)
}

/// The seed of a part of what has a seed: that of both names, one behind the other.
pub(super) fn derived(seed: u64, part: &str) -> u64 {
    part.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}
