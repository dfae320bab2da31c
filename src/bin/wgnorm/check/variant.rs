//! Variants: forced plans and placements that together reach what one adapter's policy alone would not.
//!
//! Nearly all of the time of a check is the compilation of kernels, so variants share what they can: words of one or two
//! (strips of eight, the policy's on a CPU, cost most by far and are left to `policy` and `repeat`), and workgroups of 8 or 32.

use wgnorm::Tuning;

use super::case::Problem;

pub struct Variant {
    pub name: &'static str,
    pub tuning: Tuning,
    pub placement: Placement,
}

/// Where tensors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each at the start of a buffer of its own.
    Apart,
    /// Each at this element of a buffer of its own.
    Phase(u64),
    /// Each a few elements into a buffer of its own, not all as many.
    Shifted,
    /// All in one buffer, with gaps between them.
    OneBuffer,
    /// Batches in two buffers each, cut at a sample.
    Parts,
    /// Batches are channels of larger ones: how many there are before and behind them.
    View { before: usize, behind: usize },
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
/// done to an element.
pub const PLAIN: [&str; 7] =
    ["policy", "split", "teams", "large teams", "phase 3, split", "no subgroups", "groups"];

pub fn all() -> [Variant; 19] {
    let free = Tuning::default();
    // Most variants force these, so that they share kernels: compiling takes nearly all of the time.
    let team = Tuning { workgroup_size: Some(8), team_size: Some(8), strip: Some(1), ..free };
    let teams = Tuning { workgroup_size: Some(32), team_size: Some(8), strip: Some(2), ..free };
    let of = |name, tuning, placement| Variant { name, tuning, placement };
    [
        // What an application gets.
        of("policy", free, Placement::Apart),
        // The same again, for the bits.
        of("repeat", free, Placement::Apart),
        // Slices held in registers, where they fit: one dispatch for a training pass.
        of("resident", Tuning { resident: Some(true), workgroup_size: Some(32), ..free }, Placement::Apart),
        // Teams that merge through workgroup memory alone, as where subgroups have no fixed size.
        of("no subgroups", Tuning { subgroups: Some(false), ..team }, Placement::Apart),
        // Reduce and map take a few channels in turn.
        of("groups", Tuning { group_bytes: Some(1), splits: Some(3), ..team }, Placement::Apart),
        // 4-byte words.
        of("scalar", Tuning { width: Some(1), ..team }, Placement::Apart),
        // Partial results of several workgroups per slice.
        of("split", Tuning { splits: Some(3), ..team }, Placement::Apart),
        // More partial results than one team merges at once, and tiles of few words.
        of("many splits", Tuning { splits: Some(100), ..team }, Placement::Apart),
        // Several teams per workgroup, rows as one, strips.
        of("teams", Tuning { rows: Some(2), ..teams }, Placement::Apart),
        // One team that walks all of a slice.
        of("large teams", Tuning { splits: Some(1), ..team }, Placement::Apart),
        // 16-byte words of which a tensor holds the last values of the first; guards around it.
        of("phase 1", team, Placement::Phase(1)),
        // The same with one value in the first word, where a split begins inside of a slice.
        of("phase 3, split", Tuning { splits: Some(2), ..team }, Placement::Phase(3)),
        // Tensors that do not share 16-byte words.
        of("shifted", team, Placement::Shifted),
        // Inputs bound read-write, with offsets.
        of("one buffer", team, Placement::OneBuffer),
        // Several dispatches per step, because a tensor exceeds what one may bind.
        of("windows", Tuning { window_bytes: Some(WINDOW), ..team }, Placement::Apart),
        // Several dispatches per step, because a tensor lies in several buffers.
        of("parts", team, Placement::Parts),
        // Strides that are no multiples of a word.
        of("view", team, Placement::View { before: 1, behind: 2 }),
        // Strides in words.
        of("view of words", team, Placement::View { before: 4, behind: 4 }),
        // binary16 by integer arithmetic, which adapters need whose own conversion is not exact.
        of("integer f16", Tuning { integer_f16: true, ..team }, Placement::Apart),
    ]
}

/// The name of a variant, as names of cases have it.
pub fn label(name: &str) -> String {
    name.replace(", ", "_").replace(' ', "_")
}

/// Bytes of a window.
pub const WINDOW: u64 = 1024;

impl Variant {
    /// Whether it is asked for, and differs from others for a problem.
    pub fn applies(&self, problem: &Problem) -> bool {
        let asked = match problem.variants {
            Variants::All => true,
            Variants::Limits => LIMITS.contains(&self.name),
            Variants::Sums => SUMS.contains(&self.name),
            Variants::One("repeat") => ["policy", "repeat"].contains(&self.name),
            Variants::One(name) => self.name == name,
        };
        let bytes = problem.elements() as u64 * problem.dtype.size();
        asked
            && problem.work.takes(self.placement)
            && match self.name {
                "windows" => bytes > WINDOW && bytes < 4096 * WINDOW,
                "parts" => problem.dims[0] > 1,
                "integer f16" => problem.dtype == wgnorm::DType::F16,
                _ => true,
            }
    }
}
