//! What burn's own operations do in the place of wgnorm's kernels, counted, and never in silence where that is asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static STRICT: AtomicBool = AtomicBool::new(false);
static FALLBACKS: AtomicU64 = AtomicU64::new(0);
static COPIES: AtomicU64 = AtomicU64::new(0);

/// Whether a forward pass that would fall back panics instead, with the reason.
pub fn set_strict(strict: bool) {
    STRICT.store(strict, Ordering::Relaxed);
}

/// Forward passes so far that burn's own operations have done: on a device that is not shared, or of a type that the kernels do not take here.
pub fn fallbacks() -> u64 {
    FALLBACKS.load(Ordering::Relaxed)
}

/// Copies so far of tensors that do not lie densely.
pub fn copies() -> u64 {
    COPIES.load(Ordering::Relaxed)
}

pub(crate) fn count_copy() {
    COPIES.fetch_add(1, Ordering::Relaxed);
}

/// Counts a pass that falls back.
///
/// # Panics
/// Where [`set_strict`] asks for it.
pub(crate) fn fall_back(layer: &str, reason: &str) {
    assert!(!STRICT.load(Ordering::Relaxed), "{layer} would fall back on burn's own operations: {reason}");
    FALLBACKS.fetch_add(1, Ordering::Relaxed);
}
