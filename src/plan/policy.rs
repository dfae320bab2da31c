//! How a problem is cut into workgroups: a pure function of the problem, the capabilities and what the caller forces.

use std::fmt;

use super::{Capabilities, Walk};
use crate::error::{Error, Result};

/// Values that one accumulator sums before it is merged: `SCALE` in shaders/lib/moments.wgsl allows for 64.
const CHUNK_VALUES: u32 = 64;
/// Bytes of the largest value that a workgroup reduces (`Moments`).
const PARTIAL_BYTES: u32 = 24;
/// Iterations kept back for the prologue, which takes half of them at most, and the tree.
const LOOP_MARGIN: u64 = 4096;

/// Choices of a plan that are forced instead of left to the policy, for tests and measurements. The default
/// forces nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// f32 per memory access: 1 or 4. Four needs an inner size that is a multiple of four and tensors on
    /// multiples of 16 bytes, else one is taken.
    pub width: Option<u32>,
    /// Invocations per workgroup.
    pub workgroup_size: Option<u32>,
    /// Workgroups per slice, as far as the slice has that many words and the loop limit allows it.
    pub splits: Option<u32>,
}

/// How a walk is cut into workgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// f32 per word.
    pub width: u32,
    /// Invocations per workgroup.
    pub workgroup_size: u32,
    /// Words that one accumulator sums before it is merged.
    pub chunk_words: u32,
    /// Slices (channels).
    pub slices: u32,
    /// Workgroups per slice.
    pub splits: u32,
    /// Words per slice.
    pub slice_words: u32,
    /// Words per workgroup.
    pub tile_words: u32,
    /// Words per contiguous run.
    pub run_words: u32,
    /// Words between neighbouring slices.
    pub slice_stride: u32,
    /// Words between consecutive runs of a slice.
    pub run_stride: u32,
    /// Workgroups in x and y.
    pub grid: [u32; 2],
    /// Iterations that one invocation runs at most, summed over its loops.
    pub longest_loop: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "f32x{} wg{} slices {} x splits {} tile {} words grid {}x{} loop {}",
            self.width,
            self.workgroup_size,
            self.slices,
            self.splits,
            self.tile_words,
            self.grid[0],
            self.grid[1],
            self.longest_loop
        )
    }
}

/// Plans a walk with at least one word per slice.
///
/// # Errors
/// [`Error::TooLarge`] if the walk cannot be addressed or dispatched, [`Error::MissingCapability`] if a forced
/// workgroup size exceeds the device.
pub(crate) fn plan_walk(walk: &Walk, capabilities: &Capabilities, tuning: &Tuning) -> Result<Plan> {
    if let Some(got) = tuning.width.filter(|width| ![1, 4].contains(width)) {
        let (needed, got) = (u64::from(got), 4);
        return Err(Error::MissingCapability { what: "words of another width than 1 or 4", needed, got });
    }
    let wide = walk.aligned && walk.inner.is_multiple_of(4) && tuning.width != Some(1);
    let width: u32 = if wide { 4 } else { 1 };
    let workgroup_size = workgroup_size(capabilities, tuning)?;
    let chunk_words = CHUNK_VALUES / width;
    let words = |elements: u64| elements / u64::from(width);
    let slice_words = words(walk.runs * walk.inner);
    let lanes = u64::from(workgroup_size);

    // An invocation runs one iteration per word and less than two per chunk; before that, one per `lanes` partial results.
    let iterations = |rounds: u64, splits: u64| {
        rounds + 2 * rounds.div_ceil(u64::from(chunk_words)) + splits.div_ceil(lanes)
    };
    let rounds_allowed = (capabilities.max_loop_iterations - LOOP_MARGIN) * u64::from(chunk_words)
        / (u64::from(chunk_words) + 2);
    let splits_allowed = lanes * LOOP_MARGIN / 2;
    let splits_needed = slice_words.div_ceil(rounds_allowed * lanes);
    let splits = match tuning.splits {
        Some(forced) => u64::from(forced.max(1)).min(splits_allowed).max(splits_needed),
        None => {
            let wanted = target_workgroups(capabilities).div_ceil(walk.slices);
            wanted.min(slice_words / (min_tile_rounds(capabilities) * lanes)).max(1).max(splits_needed)
        }
    };
    let mut tile_words = slice_words.div_ceil(splits);
    if tile_words > lanes {
        tile_words = tile_words.next_multiple_of(lanes);
    }
    let splits = slice_words.div_ceil(tile_words);
    let rounds = tile_words.div_ceil(lanes);
    let longest_loop = iterations(rounds, splits);
    if longest_loop >= capabilities.max_loop_iterations {
        return Err(Error::TooLarge {
            what: "a channel of x",
            needed: longest_loop,
            unit: "loop iterations per invocation",
            limit_name: "loop limit",
            limit: capabilities.max_loop_iterations,
        });
    }

    Ok(Plan {
        width,
        workgroup_size,
        chunk_words,
        slices: address(walk.slices)?,
        splits: address(splits)?,
        slice_words: address(slice_words)?,
        tile_words: address(tile_words)?,
        run_words: address(words(walk.inner))?,
        slice_stride: address(words(walk.slice_stride))?,
        run_stride: address(words(walk.run_stride))?,
        grid: grid(walk.slices * splits, capabilities)?,
        longest_loop,
    })
}

/// Plans one workgroup per slice that folds `partials` records, or one invocation per slice where there are none to fold.
pub(crate) fn plan_per_slice(
    slices: u64,
    partials: Option<u32>,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> Result<Plan> {
    let workgroup_size = workgroup_size(capabilities, tuning)?;
    let groups = if partials.is_some() { slices } else { slices.div_ceil(workgroup_size.into()) };
    Ok(Plan {
        width: 1,
        workgroup_size,
        chunk_words: 1,
        slices: address(slices)?,
        splits: 1,
        slice_words: 1,
        tile_words: 1,
        run_words: 1,
        slice_stride: 1,
        run_stride: 1,
        grid: grid(groups, capabilities)?,
        longest_loop: partials.unwrap_or(0).div_ceil(workgroup_size).into(),
    })
}

/// 256 on a GPU, which every WebGPU device allows. 8 on a CPU, one vector of its threads: more only adds barriers to the
/// tree. ResNet-50 at batch 8 on llvmpipe (Mesa 22.3.6, 2 cores, 2026-11-20, `wgnorm bench --workgroup-size N`, two runs
/// of each, interleaved), all layers in ms at 8, 32 and 64 invocations: training forward 210 to 266, 276 to 283, 343 to
/// 354; training backward 288 to 315, 350 to 360, 401 to 419; inference 109 to 113, 116 to 125, 126 to 128.
fn workgroup_size(capabilities: &Capabilities, tuning: &Tuning) -> Result<u32> {
    let most = capabilities.max_workgroup_size.min(capabilities.max_workgroup_bytes / PARTIAL_BYTES);
    let size = tuning.workgroup_size.unwrap_or(if capabilities.cpu { 8 } else { 256 }.min(most));
    if size == 0 || size > most {
        return Err(Error::MissingCapability {
            what: "invocations per workgroup",
            needed: size.into(),
            got: most.into(),
        });
    }
    Ok(size)
}

/// Workgroups that fill a device: a few per core of a CPU, eight of 256 invocations for each of the 256 or so
/// compute units of a large GPU.
fn target_workgroups(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 64 } else { 2048 }
}

/// Words per invocation below which a slice is not split further: a workgroup must have more to walk than its tree
/// costs; on a GPU idle compute units cost more.
fn min_tile_rounds(capabilities: &Capabilities) -> u64 {
    if capabilities.cpu { 32 } else { 8 }
}

fn address(words: u64) -> Result<u32> {
    u32::try_from(words).map_err(|_| Error::TooLarge {
        what: "x",
        needed: words,
        unit: "words",
        limit_name: "address range",
        limit: u32::MAX.into(),
    })
}

fn grid(groups: u64, capabilities: &Capabilities) -> Result<[u32; 2]> {
    let limit = u64::from(capabilities.max_workgroups_per_dimension);
    let rows = groups.div_ceil(limit);
    if rows > limit {
        return Err(Error::TooLarge {
            what: "x",
            needed: groups,
            unit: "workgroups",
            limit_name: "max_compute_workgroups_per_dimension squared",
            limit: limit * limit,
        });
    }
    Ok([groups.div_ceil(rows) as u32, rows as u32])
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::table;
    use super::*;
    use crate::shape::Shape;

    const FREE: Tuning = Tuning { width: None, workgroup_size: None, splits: None };

    fn walk(dims: &[usize]) -> Walk {
        Walk::channels(Shape::new(dims).unwrap().channels_first().unwrap(), true)
    }

    fn plan(dims: &[usize], capabilities: &Capabilities) -> Plan {
        plan_walk(&walk(dims), capabilities, &FREE).unwrap()
    }

    #[test]
    fn decisions_are_written_down() {
        let shapes: [&[usize]; 7] = [
            &[8, 64, 112, 112],
            &[8, 256, 56, 56],
            &[8, 2048, 7, 7],
            &[1, 1, 4096, 4096],
            &[4096, 512],
            &[2, 3, 5],
            &[1, 100_000, 1, 2],
        ];
        let adapters = [("webgpu", table::WEBGPU), ("lavapipe", table::LAVAPIPE), ("nvidia", table::NVIDIA)];
        let mut lines = String::new();
        for dims in shapes {
            for (name, capabilities) in &adapters {
                lines += &format!("{dims:?} on {name}: {}\n", plan(dims, capabilities));
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/decisions.txt");
        if std::env::var_os("WGNORM_WRITE_DECISIONS").is_some() {
            std::fs::write(path, &lines).unwrap();
        }
        // A change of the policy shows as a diff of this file; WGNORM_WRITE_DECISIONS=1 rewrites it.
        assert_eq!(lines, std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn tiles_cover_every_slice_exactly() {
        for capabilities in [table::WEBGPU, table::LAVAPIPE, table::NVIDIA] {
            for splits in [None, Some(1), Some(2), Some(7), Some(1000)] {
                for dims in [[1, 1, 1, 1], [3, 5, 7, 9], [2, 3, 64, 64], [1, 2, 300, 1000], [70000, 2, 1, 1]]
                {
                    let tuning = Tuning { splits, ..FREE };
                    let p = plan_walk(&walk(&dims), &capabilities, &tuning).unwrap();
                    let (splits, tile) = (u64::from(p.splits), u64::from(p.tile_words));
                    assert!((splits - 1) * tile < p.slice_words.into(), "an empty tile: {p}");
                    assert!(splits * tile >= p.slice_words.into(), "values left out: {p}");
                    assert!(u64::from(p.grid[0]) * u64::from(p.grid[1]) >= u64::from(p.slices) * splits);
                }
            }
        }
    }

    #[test]
    fn no_invocation_exceeds_the_loop_limit() {
        for elements in [1 << 22, (1 << 25) - 1, 1 << 25] {
            for width in [1, 4] {
                let tuning = Tuning { width: Some(width), splits: Some(1), ..FREE };
                let p = plan_walk(&walk(&[1, 1, elements]), &table::LAVAPIPE, &tuning).unwrap();
                assert!(p.longest_loop + LOOP_MARGIN / 2 < 65535, "{p}");
            }
        }
    }

    #[test]
    fn grids_fold_beyond_one_dimension() {
        let p = plan(&[1, 100_000, 1, 2], &table::WEBGPU);
        assert_eq!(p.grid, [50_000, 2]);
        let huge = Walk { slices: 1 << 33, ..walk(&[1, 1, 1]) };
        assert!(matches!(plan_walk(&huge, &table::WEBGPU, &FREE), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn words_are_wide_only_where_they_can_be() {
        let width = |dims: &[usize], aligned| {
            let walk = Walk { aligned, ..walk(dims) };
            plan_walk(&walk, &table::NVIDIA, &FREE).unwrap().width
        };
        assert_eq!(width(&[2, 3, 4, 4], true), 4);
        assert_eq!(width(&[2, 3, 4, 4], false), 1);
        assert_eq!(width(&[2, 3, 7, 7], true), 1);
        assert_eq!(width(&[8, 4], true), 1);
    }

    #[test]
    fn a_forced_workgroup_must_fit() {
        let tuning = Tuning { workgroup_size: Some(2048), ..FREE };
        assert!(matches!(
            plan_walk(&walk(&[2, 3, 4]), &table::NVIDIA, &tuning),
            Err(Error::MissingCapability { needed: 2048, .. })
        ));
    }
}
