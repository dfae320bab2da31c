//! The numbers that a device's speed depends on, each with what was measured.

use super::{Capabilities, Plan, Tuning, WalkKind};
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};

/// Bytes of one statistic of the largest value that a team reduces (`Moments`).
const PARTIAL_BYTES: u32 = 20;

/// 256 on a GPU, which every WebGPU device allows. 8 on a CPU, one vector of its threads: more only adds barriers to the
/// tree. ResNet-50 at batch 8 on llvmpipe (Mesa 22.3.6, 2 cores, 2026-11-20, `wgnorm bench --workgroup-size N`, two runs
/// of each, interleaved), all layers in ms at 8, 32 and 64 invocations: training forward 210 to 266, 276 to 283, 343 to
/// 354; training backward 288 to 315, 350 to 360, 401 to 419; inference 109 to 113, 116 to 125, 126 to 128.
pub(super) fn workgroup_size(
    stats: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Result<u32> {
    let fits = capabilities.max_workgroup_bytes / (PARTIAL_BYTES * stats);
    let most = capabilities.max_workgroup_size.min(fits);
    let size = match tuning.workgroup_size {
        Some(forced) => forced,
        None => (if capabilities.cpu { 8 } else { 256 }).min(1 << most.ilog2()),
    };
    if size == 0 || size > most {
        return Err(Error::MissingCapability {
            what: "invocations per workgroup",
            needed: size.into(),
            got: most.into(),
        });
    }
    reasons.push(match tuning.workgroup_size {
        Some(_) => format!("workgroup: {size} forced"),
        None if capabilities.cpu => format!("workgroup: {size}, one vector of a CPU"),
        None => format!("workgroup: {size} of at most {most}"),
    });
    Ok(size)
}

/// Workgroups that fill a device: a few per core of a CPU, eight of 256 invocations for each unit of a GPU. NVIDIA H200 (driver
/// 580.159, 2026-11-29, `wgnorm bench --layout channels_first --shape 32,256,56,56 --splits N`), training forward and backward with 512, 1024, 2048 and 4096
/// workgroups, that is 4, 8, 16 and 31 a unit: 91, 87, 80 and 74 % of the copy, 103, 98, 97 and 96 %.
pub(super) fn target_workgroups(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 64 } else { 8 * u64::from(capabilities.hardware.units) }
}

/// Words per invocation below which a slice is not split further: a workgroup must have more to walk than its tree
/// costs; on a GPU idle compute units cost more.
pub(super) fn min_tile_rounds(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 32 } else { 8 }
}

/// Words of a slice for each invocation of a team. On a CPU smaller teams save trees and barriers, until their streams are too
/// far apart. llvmpipe (Mesa 22.3.6, 2 cores, 2026-11-21, `wgnorm bench --team-size T`), training forward at teams of 1, 2 and
/// 8: (8,2048,7,7) with 104 words 2.5, 3.9 and 6.1 ms; (8,256,56,56) with 6272 words 15.9, 13.6 and 17.0 ms, its frozen
/// backward 58, 65 and 86 % of the copy. On a GPU, to have enough invocations; not measured.
pub(super) fn team_rounds(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 1024 } else { 4 }
}

/// Whether a team is one invocation or the whole workgroup, and nothing between. With four tensors or more, a CPU's teams of
/// 2 and 4 have more streams than its prefetcher follows. llvmpipe (as above, `wgnorm bench --layout channels_first --residual
/// --activation relu --team-size T --shape S`), plan fraction of frozen backward at teams of 1, 2, 4 and 8: (8,512,28,28) 63,
/// 59, 73 and 76 %, (8,1024,14,14) 80, 35, 50 and 78 %.
pub(super) fn one_or_all(tensors: usize, capabilities: &Capabilities) -> bool {
    capabilities.cpu && tensors >= 4
}

/// Words that an invocation of columns walks at once, at most, in a row of `row_words` and a tensor of `bytes`. A CPU's
/// prefetcher wants memory without gaps: llvmpipe (as above, `wgnorm bench --layout channels_last --shape 8,256,56,56 --strip N`),
/// inference at strips of 1, 2, 4 and 8: 19, 40, 51 and 99 % of the copy. Rows that strips of 8 do not span need 16, once they
/// come from memory: (8,512,28,28) at 8 and 16, training forward 49, 52 and 93, 82 %, backward 54, 57 and 90, 84 %, inference
/// 56, 44 and 105, 102 %; but (8,2048,7,7), of 3 MiB, training backward 89, 79 and 73, 64 %. 32 are faster still in rows of
/// 4 KiB ((8,1024,14,14) training forward 58, 79 and 81, 95 %) and take a minute to compile instead of 5 s. Neighbouring
/// invocations of a GPU read neighbouring words together as it is.
pub(super) fn most_column_strips(row_words: u64, bytes: u64, capabilities: &Capabilities) -> u32 {
    match capabilities.cpu {
        false => 1,
        true if row_words > 64 && bytes > 4 << 20 => 16,
        true => 8,
    }
}

/// Words of a slice that an invocation of segments walks at once, at most. On a CPU the loop around a word costs a third of its
/// time: llvmpipe (as above, `wgnorm bench --layout channels_first --strip N`), (8,256,56,56), (8,512,28,28), (8,1024,14,14) and
/// (8,2048,7,7) in total at strips of 1, 2, 4 and 8: training forward 71, 74, 86 and 76 %, backward 72, 81, 86 and 83 %, inference
/// 81, 86, 101 and 95 %. On a GPU compilers unroll loops as far as it pays; not measured.
pub(super) fn most_segment_strips(capabilities: &Capabilities) -> u32 {
    if capabilities.cpu { 4 } else { 1 }
}

/// Words of a slice that an invocation loads before it uses the first. GPUs hide the way to memory by what is on its way, and their compilers take no load past a
/// branch or a store: `cargo xtask gpus` counts what is in flight (docs/GPUS.md). A CPU has few registers for it.
pub(super) fn most_depth(width: u32, capabilities: &Capabilities) -> u32 {
    match width {
        _ if capabilities.cpu => 1,
        1 => 8,
        _ => 4,
    }
}

/// Bytes of a tensor that both dispatches of a training pass take at a time, so that the second finds in a cache what the first
/// has read; `None` for all of it. On a CPU what a cache keeps saves nothing, because loads are bound by instructions, and more
/// dispatches cost: llvmpipe (as above, `wgnorm bench --group-bytes N`), (8,256,56,56) channels first, training forward at 0.4,
/// 1 and 4 MB and all at once: 48, 67, 83 and 84 % of the copy; backward 71, 78, 97 and 93 %. On a GPU, groups have to last longer than the
/// two launches that each adds, some 5 µs, and fit half of a cache whose size wgpu does not tell; autotuning tries them.
pub(super) const GROUP_BYTES: Option<u64> = None;

/// Partial results of a slice that a map folds itself, in every of its workgroups, and bytes of a tensor from which, on a GPU, more of them are folded by a dispatch
/// of its own before it: the prologue's work grows with the square of the splits, and without it channels last can have as many workgroups as channels first. NVIDIA
/// H200 (driver 580.159, 2026-11-29), (32,256,56,56) channels last, training forward with 64, 128, 256 and 512 splits folded by the map: 0.135, 0.122, 0.194 and
/// 0.466 ms, beside a copy of 0.054 ms.
pub(super) const FOLDED_BY_MAPS: u64 = 16;
pub(super) const APART_FROM: u64 = 4 << 20;

/// Whether teams merge by shuffles within subgroups rather than through workgroup memory alone: without a barrier where a
/// subgroup holds a team. On llvmpipe it makes no difference beyond the noise (`wgnorm bench --subgroups BOOL`).
pub(super) const SHUFFLES: bool = true;

/// Bytes of registers for what a resident kernel holds: per invocation, and per workgroup, half of what a compute unit of most
/// GPUs has (256 KiB on NVIDIA since Volta and on AMD since GCN), so that what else it needs has room too.
pub(super) const HELD_BYTES: u32 = 256;
pub(super) const HELD_WORKGROUP_BYTES: u64 = 128 << 10;

/// Words that an invocation holds at most, in workgroups of a size, so that no compiler spills registers: of nine (`cargo xtask gpus`, docs/GPUS.md) several do with
/// workgroups of 1024, which have 64 registers each on NVIDIA; with 16 words of columns, or 8 whose statistics are four at a time; with 32 single values.
pub(super) fn most_held(width: u32, columns: bool, workgroup_size: u32) -> u32 {
    match (width, workgroup_size) {
        (_, 1024..) => 0,
        (1, _) => 16,
        (_, 512..) => 4,
        _ if columns => 4,
        _ => 8,
    }
}

/// Whether maps of layer and RMS norm, and the gradient sums of their rows, go along columns, where an invocation keeps gamma and beta in registers,
/// instead of along rows, where it loads both with every word. On a CPU loads are bound by instructions: llvmpipe (Mesa 22.3.6, 2 cores, 2026-11-21,
/// `wgnorm bench --norm layer --shape ROWS,WIDTH --along-columns BOOL`), plan fraction along rows and along columns, forward: rows of 1024 57 and 65 %,
/// of 4096 58 and 70 %; backward 43 and 51 %, 44 and 53 %. On a GPU a row is held, or its gamma comes from a cache; not measured.
pub(crate) fn maps_along_columns(capabilities: &Capabilities, tuning: &Tuning) -> bool {
    tuning.along_columns.unwrap_or(capabilities.cpu)
}

/// Teams that share out so many rows among each other in the backward pass of layer and RMS norm, where a row is held: enough to fill the device, whatever the size
/// of workgroups, and each with so many rows that its sums over them, 8 bytes for each place, are little beside the rows; on a GPU fewer where units would have
/// nothing to do. On a GPU not measured: `cargo xtask gpus` had 0.5 MB in flight for rows of 256, in 512 workgroups of 32, and 32 workgroups for 1024 rows of 8192.
pub(crate) fn row_teams(
    rows: u64,
    teams_of_workgroup: u64,
    workgroup_size: u32,
    capabilities: &Capabilities,
) -> u64 {
    // Iterations of an invocation are bounded, on a software adapter.
    let fewest = rows.div_ceil(256).max(1);
    if capabilities.cpu {
        return (16 * teams_of_workgroup).min(rows.div_ceil(32)).max(fewest);
    }
    let units = u64::from(capabilities.hardware.units);
    let workgroups = (4 * units * 256 / u64::from(workgroup_size)).max(units);
    let idle = units.min(rows.div_ceil(8));
    (workgroups * teams_of_workgroup).min(rows.div_ceil(16)).max(idle).max(fewest)
}

/// Whether a resident plan pays: not on a CPU, where registers are few and the cache serves the second read; nor where few
/// workgroups, of a tensor that takes more than a launch, would leave most of the device idle; nor where a workgroup of columns
/// would read less than two sectors of memory in a row, or 16-bit values are stored one by one. Not measured.
pub(super) fn holds_slices(plan: &Plan, elements: u64, capabilities: &Capabilities) -> bool {
    let fills = plan.windows.iter().all(|window| 2 * window.blocks >= capabilities.hardware.units);
    let small = elements * plan.dtype.size() <= 1 << 20;
    let teams = plan.workgroup_size / plan.team_size;
    let wide = plan.walk == WalkKind::Segments
        || plan.width == 4 && u64::from(teams * plan.width) * plan.dtype.size() >= 64
        || plan.windows.iter().all(|window| teams >= window.run_words);
    let stores = plan.width == 4 || plan.dtype == DType::F32;
    !capabilities.cpu && (fills || small) && wide && stores
}

/// Neighbouring words of a row that a workgroup walks: as many as a vector of a CPU has; on a GPU 512 bytes, where the
/// tensor is large enough to fill the device with such blocks, down to 64 bytes, two sectors of memory, where it is not.
pub(super) fn column_words(words: u64, workgroup_size: u32, capabilities: &Capabilities) -> u64 {
    if capabilities.cpu {
        return 8;
    }
    let per_workgroup = words / (2 * target_workgroups(capabilities)) / u64::from(workgroup_size);
    if per_workgroup >= min_tile_rounds(capabilities) { 32 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::table;
    use super::*;

    #[test]
    fn rows_are_shared_out_among_all_of_a_device() {
        let teams = |rows, of_workgroup, size| row_teams(rows, of_workgroup, size, &table::H200);
        // Workgroups of 32, of 512, of many teams; few rows.
        assert_eq!(teams(32768, 1, 32), 2048);
        assert_eq!(teams(1024, 1, 512), 128);
        assert_eq!(teams(1 << 20, 8, 32), 4224 * 8);
        assert_eq!(teams(8, 1, 256), 1);
        assert_eq!(row_teams(4096, 8, 8, &table::LAVAPIPE), 128);
        assert_eq!(row_teams(1 << 20, 1, 8, &table::LAVAPIPE), 4096);
    }
}
