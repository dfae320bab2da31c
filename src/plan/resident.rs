//! Resident plans: a training pass in one dispatch, where a team can hold its slice in registers.

use super::policy::plan_once;
use super::problem::Pattern;
use super::tuned::{HELD_BYTES, HELD_WORKGROUP_BYTES, holds_slices, most_held};
use super::{Capabilities, Plan, Tuning, Walk};
use crate::base::error::{Error, Result};

/// Words that kernels are compiled to hold: steps of a factor of 2 keep them few.
const STEPS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Values that an invocation sums in a row: `SCALE` in shaders/lib/accumulate.wesl allows for 64.
const MOST_VALUES: u32 = 64;

/// The plan of a resident kernel; `None` where the operation has none, slices do not fit, or streaming is faster.
///
/// # Errors
/// Those of a plan whose forced choices cannot be.
pub(super) fn plan_resident(
    walk: &Walk,
    capabilities: &Capabilities,
    tuning: &Tuning,
) -> Result<Option<Plan>> {
    let Some(copies) = walk.held else { return Ok(None) };
    if tuning.resident == Some(false) || capabilities.cpu && tuning.resident.is_none() {
        return Ok(None);
    }
    // One workgroup walks all of a slice, in one window; what was forced otherwise asks for another plan.
    let several = |forced: Option<u32>| forced.is_some_and(|forced| forced > 1);
    let streamed = tuning.tile.is_some() || tuning.group_bytes.is_some();
    let limit = tuning.window_bytes.unwrap_or(u64::MAX).min(capabilities.max_binding_bytes);
    let fits = matches!(walk.parts.as_slice(), [part] if walk.fits(part, limit));
    if streamed || several(tuning.splits) || several(tuning.strip) || several(tuning.rows) || !fits {
        return Ok(None);
    }
    let free = Tuning { splits: Some(1), strip: Some(1), rows: Some(1), ..*tuning };
    let slices = match walk.pattern {
        Pattern::Run { .. } => 1,
        Pattern::Segments { slices, .. } | Pattern::Columns { slices, .. } => slices,
        Pattern::Matrices { slices, samples, .. } => slices * samples,
    };
    let slice = walk.pattern.elements() / slices;
    let sizes: Vec<u32> = match tuning.workgroup_size {
        Some(forced) => vec![forced],
        None => {
            (5..=10).map(|log| 1 << log).filter(|&size| size <= capabilities.max_workgroup_size).collect()
        }
    };
    let widths: Vec<u32> =
        [4, 1].into_iter().filter(|&width| tuning.width.is_none_or(|w| w == width)).collect();
    // Wide words first, then few registers, then small workgroups, of which there are more.
    for &width in &widths {
        for most_bytes in [HELD_BYTES / 2, HELD_BYTES] {
            let most = (most_bytes / 4 / copies).min(MOST_VALUES) / width;
            for &workgroup_size in &sizes {
                let most = match tuning.resident {
                    Some(true) => most,
                    _ => most.min(most_held(width, walk.pattern.is_columns(), workgroup_size)),
                };
                let fits = slice <= u64::from(most * width) * u64::from(workgroup_size);
                if !fits || u64::from(most_bytes) * u64::from(workgroup_size) > HELD_WORKGROUP_BYTES {
                    continue;
                }
                let free = Tuning { width: Some(width), workgroup_size: Some(workgroup_size), ..free };
                let Some(mut plan) = plan_held(walk, most, capabilities, tuning, &free)? else { continue };
                if tuning.resident.is_none() && !holds_slices(&plan, walk.pattern.elements(), capabilities) {
                    continue;
                }
                // What the search has forced is no wish of the caller's.
                plan.reasons.retain(|reason| !reason.contains("forced"));
                plan.reasons.push(format!(
                    "resident: {} words of a slice in the registers of each of {} invocations, in workgroups of {}; \
                     one dispatch",
                    plan.held, plan.team_size, plan.workgroup_size
                ));
                return Ok(Some(plan));
            }
        }
    }
    Ok(None)
}

/// The plan with the smallest team that can hold a slice with at most so many words in each invocation.
fn plan_held(
    walk: &Walk,
    most: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    sized: &Tuning,
) -> Result<Option<Plan>> {
    let workgroup_size = sized.workgroup_size.unwrap_or(1);
    for team_size in teams(workgroup_size, tuning) {
        let plan = match plan_once(walk, capabilities, &Tuning { team_size: Some(team_size), ..*sized }) {
            Ok(plan) => plan,
            // A workgroup that the device does not have, or a walk that needs several workgroups for a slice.
            Err(Error::MissingCapability { .. } | Error::Tuning { .. })
                if tuning.workgroup_size.is_none() =>
            {
                return Ok(None);
            }
            Err(Error::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(held) = held(&plan, sized.width, most) {
            return Ok(Some(Plan { held, depth: 1, ..plan }));
        }
    }
    Ok(None)
}

/// Sizes of teams in a workgroup, the smallest first.
fn teams(workgroup_size: u32, tuning: &Tuning) -> Vec<u32> {
    match tuning.team_size {
        Some(forced) => vec![forced],
        None => {
            let powers = (0..=workgroup_size.trailing_zeros()).map(|log| 1 << log);
            powers.chain((!workgroup_size.is_power_of_two()).then_some(workgroup_size)).collect()
        }
    }
}

/// The words that an invocation holds, if the plan has one team, and one window, for all of a slice. Words of two slices need
/// the statistics of both, and a channel in several records those of several teams.
fn held(plan: &Plan, width: Option<u32>, most: u32) -> Option<u32> {
    let [window] = plan.windows.as_slice() else { return None };
    let segments = plan.walk == super::WalkKind::Segments;
    let whole = plan.splits == 1 && plan.records == plan.slices && !(segments && plan.edges);
    let words = window.slice_words.div_ceil(plan.team_size);
    let held = STEPS.into_iter().find(|&step| step >= words)?;
    (whole && Some(plan.width) == width && held <= most).then_some(held)
}
