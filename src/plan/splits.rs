//! Splits: how many workgroups share a slice, how many slices are worked on before the next, and who folds what was split.

use super::geometry::{Geometry, Words};
use super::plan::MOMENTS_BYTES;
use super::problem::Pattern;
use super::tuned::{APART_FROM, FOLDED_BY_MAPS, GROUP_BYTES, min_tile_rounds, target_workgroups};
use super::{Capabilities, Tuning, Walk};

/// Part of a tensor, of those above so many bytes, that its workspace may take.
const WORKSPACE_PART: u64 = 100;
const WORKSPACE_PART_OF_GPUS: u64 = 32;
const WORKSPACE_FROM: u64 = 4 << 20;

/// Whether partial results of so many splits are folded by a dispatch of its own.
pub(super) fn folds_apart(
    walk: &Walk,
    geometry: &Geometry,
    splits: u64,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> bool {
    let partials = splits * (geometry.records / geometry.slices);
    let bytes = geometry.elements * walk.dtype.size();
    let pays = !capabilities.cpu && partials > FOLDED_BY_MAPS && bytes >= APART_FROM;
    walk.foldable && partials > 1 && tuning.folds_apart.unwrap_or(pays)
}

/// Workgroups per slice, or per block of columns; `apart`: whether the partial results of so many are folded by a dispatch of its own.
pub(super) fn choose_splits(
    walk: &Walk,
    geometry: &Geometry,
    blocks: u64,
    apart: &impl Fn(u64) -> bool,
    capabilities: &Capabilities,
    reasons: &mut Vec<String>,
) -> u64 {
    let repeat = geometry.records / geometry.slices;
    let target = target_workgroups(capabilities);
    let lanes = u64::from(geometry.team_size);
    let rounds = min_tile_rounds(capabilities);
    let wanted = target.div_ceil(blocks);
    let worthwhile = geometry.slice_words / (rounds * lanes);
    // Every workgroup of a slice reads and merges the partial results of all: what they read should stay below a quarter
    // of the tensor, and each invocation's merges below an eighth of its words.
    let bytes = geometry.elements * walk.dtype.size();
    let readable = (bytes / (4 * MOMENTS_BYTES * geometry.records * repeat)).isqrt();
    let part = match capabilities.cpu {
        _ if bytes <= WORKSPACE_FROM => 1,
        true => WORKSPACE_PART,
        false => WORKSPACE_PART_OF_GPUS,
    };
    let small = bytes / (part * MOMENTS_BYTES * geometry.records);
    let mergeable = (geometry.slice_words / (8 * repeat)).isqrt().max(lanes / repeat);
    let bound = capabilities.max_binding_bytes / (MOMENTS_BYTES * geometry.records);
    let of_walks = [
        (wanted, format!("to have {target} workgroups")),
        (worthwhile, format!("at least {rounds} words for each invocation")),
    ];
    let of_partials = [
        (bound, "partial results are one binding".to_owned()),
        (small, format!("partial results take no more than 1/{part} of a tensor")),
    ];
    let of_maps = [
        (readable, "partial results are read by every workgroup of a slice".to_owned()),
        (mergeable, "partial results are merged by every workgroup of a slice".to_owned()),
    ];
    // Maps alone have nothing to merge, and those that find totals next to nothing. A CPU needs no more workgroups, and each of them loads the statistics of its
    // strips: llvmpipe, inference of ResNet-50 channels last at batch 8 was 6 % slower with 64 workgroups wherever they are possible.
    let by_every_workgroup = !apart(wanted.min(worthwhile));
    let of_partials = of_partials.into_iter().filter(|_| walk.merges || capabilities.cpu);
    let of_maps = of_maps.into_iter().filter(|_| walk.merges && by_every_workgroup || capabilities.cpu);
    let limits = of_walks.into_iter().chain(of_partials).chain(of_maps);
    let (splits, why) = limits.min_by_key(|(splits, _)| *splits).unwrap_or_default();
    reasons.push(format!("splits: {}, {why}", splits.max(1)));
    splits.max(1)
}

/// Slices, or words of a row, that both dispatches of a training pass walk before the next: so many that they have the bytes
/// that a cache keeps, of every tensor. `None` for all of them.
pub(super) fn choose_group(
    walk: &Walk,
    words: &Words,
    geometry: &Geometry,
    teams: u64,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Option<u64> {
    let bytes = tuning.group_bytes.or(GROUP_BYTES)?;
    // Inference, copies and moments read what they read once.
    walk.held?;
    // Slices that share a word belong to one group: every fourth begins with a word, in each sample that does.
    let width = u64::from(words.width);
    let whole = match walk.pattern {
        Pattern::Run { .. } => return None,
        Pattern::Segments { slices, inner, .. } if words.edges => {
            if walk.parts[0].phase != 0 || !(slices * inner).is_multiple_of(width) {
                return None;
            }
            teams.next_multiple_of(width)
        }
        // A channel of several rows as one is in several columns.
        Pattern::Columns { .. } if geometry.records != geometry.slices => return None,
        Pattern::Segments { .. } | Pattern::Columns { .. } | Pattern::Matrices { .. } => teams,
    };
    let each = geometry.elements / geometry.columns * walk.dtype.size();
    let group = (bytes / each.max(1) / whole * whole).max(whole);
    if group >= geometry.columns {
        return None;
    }
    reasons.push(format!(
        "groups: of {group} of {} slices or columns, {} bytes of a tensor, for the cache",
        geometry.columns,
        group * each
    ));
    Some(group)
}
