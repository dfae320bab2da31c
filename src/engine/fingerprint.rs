//! What kernels and plans are made of, as a number: what was compiled or measured before is of use as long as it is the same.

use std::sync::OnceLock;

use crate::engine::shader::modules;

/// The sources of everything that decides a plan.
const POLICY: &[&str] = &[
    include_str!("../plan/capabilities.rs"),
    include_str!("../plan/geometry.rs"),
    include_str!("../plan/hardware.rs"),
    include_str!("../plan/per_slice.rs"),
    include_str!("../plan/ragged.rs"),
    include_str!("../plan/plan.rs"),
    include_str!("../plan/policy.rs"),
    include_str!("../plan/problem.rs"),
    include_str!("../plan/resident.rs"),
    include_str!("../plan/slices.rs"),
    include_str!("../plan/splits.rs"),
    include_str!("../plan/tiles.rs"),
    include_str!("../plan/tuned.rs"),
    include_str!("../plan/windows.rs"),
];

/// Of the shaders: what compiled kernels depend on beside the driver.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn shaders() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    *FOUND.get_or_init(|| fnv(modules::texts()))
}

/// Of the shaders and the policy: what measured plans depend on.
pub(crate) fn plans() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    *FOUND.get_or_init(|| fnv(modules::texts().chain(POLICY.iter().copied())))
}

/// FNV-1a over texts, with a byte between them that is in none. Line ends are as in a checkout with LF.
pub(crate) fn fnv<'t>(texts: impl Iterator<Item = &'t str>) -> u64 {
    let bytes = texts.flat_map(|text| text.bytes().filter(|&byte| byte != b'\r').chain([0xFF]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_a_text_is_seen() {
        let of = |texts: &[&str]| fnv(texts.iter().copied());
        assert_eq!(of(&["a\r\nb"]), of(&["a\nb"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
        assert_ne!(of(&["ab"]), of(&["ac"]));
        assert_ne!(shaders(), plans());
    }

    #[test]
    fn all_of_the_policy_is_part_of_it() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut sources: Vec<_> = files.filter_map(|name| name.into_string().ok()).collect();
        // Which plans are measured, and how they are written, decides none of them; the module has no code.
        let none = ["candidates.rs", "forced.rs", "mod.rs"];
        sources.retain(|name| name.ends_with(".rs") && !none.contains(&name.as_str()));
        assert_eq!(sources.len(), POLICY.len(), "{sources:?}");
    }
}
