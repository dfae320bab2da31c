//! What burn's own operations do in the place of wgnorm's kernels, counted, and never in silence where that is asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use burn::tensor::{Tensor, activation};
use wgnorm::Activation;

static STRICT: AtomicBool = AtomicBool::new(false);
static FALLBACKS: AtomicU64 = AtomicU64::new(0);
static COPIES: AtomicU64 = AtomicU64::new(0);

/// Whether a forward pass that would fall back panics instead, with the reason.
pub fn set_strict(strict: bool) {
    STRICT.store(strict, Ordering::Relaxed);
}

/// Forward passes so far that burn's own operations have done: on a device that is not shared, of a type or an epsilon that the kernels do not take, or of a shape, which burn's layer then takes or refuses.
pub fn fallbacks() -> u64 {
    FALLBACKS.load(Ordering::Relaxed)
}

/// Copies so far of tensors that do not lie as a norm reads them: densely, channels second or last, those of norms of the last axis in the order of their axes; and all in the order of x.
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

/// What comes after a norm, by burn's operations.
///
/// # Panics
/// For a function of one's own, which exists as WGSL alone.
pub(crate) fn finished<const D: usize>(
    y: Tensor<D>,
    residual: Option<Tensor<D>>,
    then: Activation,
) -> Tensor<D> {
    let z = match residual {
        Some(residual) => y + residual,
        None => y,
    };
    match then {
        Activation::None => z,
        Activation::Relu => activation::relu(z),
        Activation::Relu6 => activation::relu6(z),
        Activation::LeakyRelu { slope } => activation::leaky_relu(z, f64::from(slope)),
        Activation::Silu => activation::silu(z),
        Activation::Gelu => activation::gelu(z),
        Activation::GeluTanh => activation::gelu_approximate(z),
        Activation::Sigmoid => activation::sigmoid(z),
        Activation::Tanh => activation::tanh(z),
        Activation::HardSwish => activation::hard_swish(z),
        other => panic!("{} has no operations of burn's to fall back on", other.name()),
    }
}
