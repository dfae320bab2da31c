//! Plans that are measured instead of reasoned: an option of a context, off by default.
//!
//! When an operation is prepared whose [`Problem`] is not known yet, the plans of `plan/candidates.rs` are run on scratch tensors
//! like the caller's ([`twins`]), timed in turns ([`timing`]), and the winner is pinned ([`pins`]) for the life of the device, and
//! beyond in a file that the caller keeps ([`text`]). Which operations there are and how they run is not known here:
//! `pass/tuning.rs`.

mod pins;
mod problem;
mod text;
mod timing;
mod twins;

pub(crate) use pins::{Chosen, Pin, Pins, look_up, pin, settled_for};
pub use pins::{PinnedTuning, TuningSource};
pub(crate) use problem::Problem;
#[cfg(not(target_family = "wasm"))]
pub(crate) use text::others;
pub(crate) use text::{Header, export, import};
pub use text::{IgnoredTuning, LoadedTunings};
pub(crate) use timing::{fastest, keep};
pub(crate) use twins::Twins;

/// Whether a context measures plans, or uses those that were.
///
/// Which plan computes a result decides its last bits, and never more: all plans keep the same bounds. Once a problem is pinned its
/// plan, and so its bits, stay the same; before that a measurement decides, which need not come out alike on two runs. A problem is an
/// operation with its shape, layout, element type, activation, residual, wanted gradients and places of tensors within words;
/// operations that differ in any of these may have different plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Autotuning {
    /// The policy decides; what is pinned has no effect.
    #[default]
    Off,
    /// Plans that are pinned are used, from a file for example; for other problems the policy decides.
    Pinned,
    /// As `Pinned`; problems that are not pinned are measured when they are prepared, and pinned.
    Measure,
}
