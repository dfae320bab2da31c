//! Variants: forced plans and placements that together reach what one adapter's policy alone would not.
//!
//! Nearly all of the time of a check is the compilation of kernels, so variants share what they can: words of one or two
//! (strips of eight, the policy's on a CPU, cost most by far and are left to `policy` and `repeat`), and workgroups of 8 or 32.

use super::run::Plan;
use crate::base::dtype::DType;
use crate::base::shape::Layout;
use crate::engine::slab::WHOLE;
use crate::plan::{MOMENTS_BYTES, Tuning};
use crate::spec::{Norm, Place, Spec, Statistics};

/// A plan and a placement, by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// Its name in reports and names of cases.
    pub name: &'static str,
    /// What is forced.
    pub tuning: Tuning,
    /// Where tensors lie.
    pub place: Place,
}

/// Which variants a case is run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variants {
    /// All that apply.
    All,
    /// What may need more workgroups, or longer loops, than a device has.
    Limits,
    /// What depends on the data: how values are summed, not where they lie.
    Sums,
    /// One; `repeat` with what it repeats.
    One(&'static str),
}

/// Those that sum in other orders.
const SUMS: [&str; 7] = ["policy", "resident", "no subgroups", "scalar", "many splits", "teams", "phase 1"];

/// Those that have most workgroups, and longest loops.
const LIMITS: [&str; 6] = ["policy", "repeat", "scalar", "many splits", "large teams", "parts"];

/// Those that a matrix leaves to plain cases: `policy`, which `repeat` has, and how a walk is cut among teams, which does not depend on what is
/// done to an element, nor do parts, which are of many slices.
pub(super) const PLAIN: [&str; 11] = [
    "many teams",
    "ahead",
    "policy",
    "split",
    "teams",
    "large teams",
    "phase 3, split",
    "no subgroups",
    "groups",
    "bindings",
    "default bindings",
];

/// All of them.
pub fn all() -> [Variant; 24] {
    let free = Tuning::default();
    // Most variants force these, so that they share kernels: compiling takes nearly all of the time.
    let team = Tuning { workgroup_size: Some(8), team_size: Some(8), strip: Some(1), ..free };
    let teams = Tuning { workgroup_size: Some(32), team_size: Some(8), strip: Some(2), ..free };
    let of = |name, tuning, place| Variant { name, tuning, place };
    [
        // What an application gets.
        of("policy", free, Place::Apart),
        // The same again, for the bits.
        of("repeat", free, Place::Apart),
        // Slices held in registers, where they fit: one dispatch for a training pass.
        of("resident", Tuning { resident: Some(true), workgroup_size: Some(32), ..free }, Place::Apart),
        // Teams that merge through workgroup memory alone, as where subgroups have no fixed size. More invocations than a vector of a CPU
        // has, which do not wait for each other but at barriers, and two teams of more members than a level of the tree merges.
        of(
            "no subgroups",
            Tuning { subgroups: Some(false), workgroup_size: Some(32), team_size: Some(16), ..team },
            Place::Apart,
        ),
        // Reduce and map take a few channels in turn.
        of("groups", Tuning { group_bytes: Some(1), splits: Some(3), ..team }, Place::Apart),
        // 4-byte words.
        of("scalar", Tuning { width: Some(1), ..team }, Place::Apart),
        // Partial results of several workgroups per slice, folded before the map.
        of("split", Tuning { splits: Some(3), folds_apart: Some(true), ..team }, Place::Apart),
        // More partial results than one team merges at once, and tiles of few words.
        of("many splits", Tuning { splits: Some(100), ..team }, Place::Apart),
        // Several teams per workgroup, rows as one, strips.
        of("teams", Tuning { rows: Some(2), ..teams }, Place::Apart),
        // Several words are loaded before the first is used, as on a GPU; a step may have fewer.
        of("ahead", Tuning { depth: Some(4), ..team }, Place::Apart),
        // One team that walks all of a slice.
        of("large teams", Tuning { splits: Some(1), ..team }, Place::Apart),
        // 16-byte words of which a tensor holds the last values of the first; guards around it.
        of("phase 1", team, Place::Phase(1)),
        // The same with one value in the first word, where a split begins inside of a slice.
        of("phase 3, split", Tuning { splits: Some(2), ..team }, Place::Phase(3)),
        // Tensors that do not share 16-byte words.
        of("shifted", team, Place::Shifted),
        // Inputs bound read-write, with offsets.
        of("one buffer", team, Place::Shared),
        // Several dispatches per step, because a tensor exceeds what one may bind.
        of("windows", Tuning { window_bytes: Some(WINDOW), ..team }, Place::Apart),
        // Operations in parts, because no binding has room for what all slices need.
        of("bindings", Tuning { binding_bytes: Some(BINDING), ..team }, Place::Apart),
        // What a browser offers by default.
        of("default bindings", Tuning { binding_bytes: Some(DEFAULT_BINDING), ..free }, Place::Apart),
        // Several dispatches per step, because a tensor lies in several buffers.
        of("parts", team, Place::Parts),
        // Strides that are no multiples of a word.
        of("view", team, Place::View(1, 2)),
        // Strides in words.
        of("view of words", team, Place::View(4, 4)),
        // Maps of layer and RMS norm along rows, where a CPU's policy has them go along columns.
        of("along rows", Tuning { along_columns: Some(false), ..team }, Place::Apart),
        // binary16 by integer arithmetic, which adapters need whose own conversion is not exact.
        of("integer f16", Tuning { integer_f16: true, ..team }, Place::Apart),
        // More teams of a workgroup than are summed together, with strips between each other.
        of("many teams", Tuning { team_size: Some(1), ..teams }, Place::Apart),
    ]
}

/// The name of a variant, as names of cases have it.
pub(super) fn label(name: &str) -> String {
    name.replace(", ", "_").replace(' ', "_")
}

/// Bytes of a window.
pub(super) const WINDOW: u64 = 1024;

/// Bytes of a binding: room for the records of a few hundred slices, and, where bindings begin at multiples of 256 bytes, for windows.
pub(super) const BINDING: u64 = 16384;

/// `maxStorageBufferBindingSize` of WebGPU where nothing else is asked for.
const DEFAULT_BINDING: u64 = 128 << 20;

impl Variant {
    /// The plan of a run in a layout.
    pub fn plan(&self, layout: Layout) -> Plan {
        Plan { layout, place: self.place, tuning: self.tuning }
    }

    /// What of its plan kernels are made by: variants of one value have most of them in common.
    pub fn kernels(&self) -> Tuning {
        let Tuning { workgroup_size, team_size, strip, depth, width, subgroups, resident, .. } = self.tuning;
        Tuning { workgroup_size, team_size, strip, depth, width, subgroups, resident, ..Tuning::default() }
    }

    /// Whether it is asked for, and differs from others for a problem.
    pub fn applies(&self, spec: &Spec, variants: Variants) -> bool {
        let asked = match variants {
            Variants::All => true,
            Variants::Limits => LIMITS.contains(&self.name),
            Variants::Sums => SUMS.contains(&self.name),
            Variants::One("repeat") => ["policy", "repeat"].contains(&self.name),
            Variants::One(name) => self.name == name,
        };
        let bytes = spec.elements() as u64 * spec.dtype.size();
        asked
            && takes(spec, self.place)
            && match self.name {
                "windows" => bytes > WINDOW && bytes < 4096 * WINDOW,
                "bindings" => bytes > BINDING && bytes < 256 * BINDING && spec.has_room_for_parts(bytes),
                "default bindings" => bytes > DEFAULT_BINDING / 4,
                "parts" => spec.shape[0] > 1,
                "integer f16" => spec.dtype == DType::F16,
                "many teams" => spec.axes.is_some(),
                "along rows" => matches!(spec.norm, Norm::Layer(_) | Norm::Rms(_)),
                _ => true,
            }
    }
}

impl Spec {
    /// Whether the partial results of as few channels as parts are cut into fit into a binding: channels last each window has some of all of them.
    fn has_room_for_parts(&self, bytes: u64) -> bool {
        self.norm.is_of_slices() || bytes.div_ceil(BINDING) * WHOLE * MOMENTS_BYTES <= BINDING
    }
}

impl Variants {
    /// Every layout with every variant that applies to a problem.
    pub fn runs(self, spec: &Spec, layouts: &[Layout]) -> Vec<(Layout, Variant)> {
        let variants: Vec<_> = all().into_iter().filter(|variant| variant.applies(spec, self)).collect();
        layouts.iter().flat_map(|&layout| variants.iter().map(move |&variant| (layout, variant))).collect()
    }
}

/// Whether the tensors of a problem can lie so.
pub(super) fn takes(spec: &Spec, place: Place) -> bool {
    match spec.statistics {
        // Shards are placed by themselves, and micro-batches are parts already.
        Statistics::Synchronised(_) | Statistics::Accumulated(_) | Statistics::Ghost(_) => {
            place == Place::Apart
        }
        // Batches may have one sample.
        Statistics::Sequence(_) => place != Place::Parts,
        // Each in one buffer; only rows are apart, and all equally far.
        _ if is_in_one_buffer(spec) => match place {
            Place::Parts | Place::Mixed => false,
            Place::View(..) | Place::Gaps(_) => spec.has_rows_apart(),
            _ => true,
        },
        _ => true,
    }
}

/// Whether its tensors lie in one buffer each.
fn is_in_one_buffer(spec: &Spec) -> bool {
    let norm = &spec.norm;
    norm.is_of_slices() || norm.spectral().is_some() || matches!(norm, Norm::Switchable(_))
}
