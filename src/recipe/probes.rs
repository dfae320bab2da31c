//! Kernels that find out what a device does where WGSL leaves it open.

use super::{BindingType, Kernel};
use crate::engine::probe;
use crate::plan::Capabilities;

/// A kernel with what it finds out: it counts differences from what is expected in its one binding, a `u32` that begins as 0.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Probe {
    /// What holds if none of the probes of it finds a difference.
    pub found: Found,
    /// What is compiled; if the device refuses it, nothing is found.
    pub kernel: Kernel,
    /// Workgroups of its dispatch.
    pub workgroups: u32,
}

/// What is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Found {
    /// Invocations are in subgroups in their order: [`Capabilities::subgroup_size`] may be the size of the smallest.
    OrderedSubgroups,
    /// The built-in conversions of binary16 keep every value: [`Capabilities::exact_f16`].
    ExactF16,
}

/// What tells whether a device may have the `subgroup_size` that these capabilities say, and `exact_f16`.
///
/// ```
/// use wgnorm::recipe::{Found, probes};
/// use wgnorm::tuning::Capabilities;
/// let probes = probes(&Capabilities::webgpu());
/// assert!(probes.iter().all(|probe| probe.found == Found::ExactF16));
/// ```
pub fn probes(capabilities: &Capabilities) -> Vec<Probe> {
    let subgroups = probe::Probe::of_subgroups(capabilities).into_iter();
    let subgroups = subgroups.map(|probe| written(Found::OrderedSubgroups, probe));
    subgroups.chain([written(Found::ExactF16, probe::Probe::of_f16())]).collect()
}

fn written(found: Found, probe: probe::Probe) -> Probe {
    let probe::Probe { entry, wgsl, constants, workgroups } = probe;
    let constants: Vec<_> = constants.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let values: String = constants.iter().map(|(_, value)| format!(" {value}")).collect();
    let kernel = Kernel {
        name: format!("{entry}{values}"),
        wgsl,
        entry_point: entry.to_owned(),
        constants,
        bindings: vec![(0, BindingType::ReadWrite)],
    };
    Probe { found, kernel, workgroups }
}
