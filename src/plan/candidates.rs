//! The plans that are worth measuring for a problem: a pure function of the problem and the capabilities, like the policy, whose
//! own plan is always the first.

use super::{Capabilities, Plan, Tuning, Walk, plan_walk};
use crate::base::error::Result;

/// Plans of a problem at most: each has kernels to compile.
pub(crate) const MOST: usize = 12;

/// Other values for one choice of a plan that the policy has made, the more promising first.
type Knob = fn(&Walk, &Plan, &Capabilities) -> Vec<Tuning>;

/// The choices that are varied, one at a time. The first values of all knobs come before the second ones, so that none is lost
/// to [`MOST`].
const KNOBS: [Knob; 8] = [residents, groups, team_sizes, depths, splits, strips, workgroup_sizes, merges];

/// What to force for each plan that is worth measuring; nothing for the first, the policy's own. No two give the same plan.
///
/// # Errors
/// As [`plan_walk`], for the policy's own plan. Others that cannot be are left out.
pub(crate) fn candidates(walk: &Walk, capabilities: &Capabilities) -> Result<Vec<Tuning>> {
    let policy = plan_walk(walk, capabilities, &Tuning::default())?;
    let varied = KNOBS.map(|knob| knob(walk, &policy, capabilities));
    let longest = varied.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|at| varied.iter().filter_map(move |values| values.get(at)));
    let (mut tunings, mut plans) = (vec![Tuning::default()], vec![unexplained(policy.clone())]);
    for tuning in in_turn {
        let Ok(plan) = plan_walk(walk, capabilities, tuning).map(unexplained) else { continue };
        if tunings.len() < MOST && !plans.contains(&plan) {
            tunings.push(*tuning);
            plans.push(plan);
        }
    }
    Ok(tunings)
}

/// The plan without what is not of it, but about it.
fn unexplained(plan: Plan) -> Plan {
    Plan { reasons: Vec::new(), ..plan }
}

/// Half, twice, a quarter and four times a value, as far as these are whole and not beyond `most`.
fn around(value: u32, most: u32) -> impl Iterator<Item = u32> {
    let smaller = |by: u32| (value.is_multiple_of(by) && value > 1).then_some(value / by);
    let larger = |by: u32| value.checked_mul(by).filter(|&larger| larger <= most);
    [smaller(2), larger(2), smaller(4), larger(4)].into_iter().flatten()
}

/// Slices in registers where the policy streams them, and the other way round; on a CPU, which has few registers, never.
fn residents(walk: &Walk, plan: &Plan, capabilities: &Capabilities) -> Vec<Tuning> {
    if walk.held.is_none() || capabilities.cpu {
        return Vec::new();
    }
    vec![Tuning { resident: Some(plan.held == 0), ..Tuning::default() }]
}

/// Groups of what caches keep: a MiB to tens. The kernels are the same.
fn groups(walk: &Walk, plan: &Plan, _: &Capabilities) -> Vec<Tuning> {
    let bytes = walk.pattern.elements() * walk.dtype.size();
    let groups =
        [16 << 20, 1 << 20, 4 << 20].into_iter().filter(|&group| plan.held == 0 && 2 * group <= bytes);
    groups.map(|group| Tuning { group_bytes: Some(group), ..Tuning::default() }).collect()
}

/// Shuffles instead of workgroup memory alone, or the other way round.
fn merges(_: &Walk, plan: &Plan, _: &Capabilities) -> Vec<Tuning> {
    vec![Tuning { subgroups: Some(plan.subgroup_size == 0), ..Tuning::default() }]
}

fn team_sizes(_: &Walk, plan: &Plan, _: &Capabilities) -> Vec<Tuning> {
    let divides = |team: &u32| plan.workgroup_size.is_multiple_of(*team);
    let sizes = around(plan.team_size, plan.workgroup_size).filter(divides);
    sizes.map(|team_size| Tuning { team_size: Some(team_size), ..Tuning::default() }).collect()
}

/// Workgroups per slice: more of them where the device is not full, fewer where partial results cost more than they gain.
fn splits(_: &Walk, plan: &Plan, _: &Capabilities) -> Vec<Tuning> {
    // The loop limit and the length of a slice bound what the policy makes of them.
    let splits = around(plan.splits, u32::MAX);
    splits.map(|splits| Tuning { splits: Some(splits), ..Tuning::default() }).collect()
}

/// Words that an invocation loads before it uses the first; a CPU has strips instead.
fn depths(_: &Walk, plan: &Plan, capabilities: &Capabilities) -> Vec<Tuning> {
    if capabilities.cpu || plan.held > 0 || plan.strip > 1 {
        return Vec::new();
    }
    around(plan.depth, 8).map(|depth| Tuning { depth: Some(depth), ..Tuning::default() }).collect()
}

/// Words that an invocation walks at once.
fn strips(_: &Walk, plan: &Plan, _: &Capabilities) -> Vec<Tuning> {
    let strips = around(plan.strip, 16);
    strips.map(|strip| Tuning { strip: Some(strip), ..Tuning::default() }).collect()
}

fn workgroup_sizes(_: &Walk, plan: &Plan, capabilities: &Capabilities) -> Vec<Tuning> {
    // Fewer than 8 are less than a vector of a CPU or a subgroup of any GPU.
    let sizes = around(plan.workgroup_size, capabilities.max_workgroup_size).filter(|&size| size >= 8);
    sizes.map(|size| Tuning { workgroup_size: Some(size), ..Tuning::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::capabilities::table;
    use super::*;
    use crate::base::shape::{Layout, Shape};

    fn walk(dims: &[usize], layout: Layout) -> Walk {
        Walk::dense(Shape::new(dims).unwrap().channels(layout).unwrap(), 0)
    }

    /// Walks of all kinds, in both layouts.
    fn walks() -> Vec<Walk> {
        let first: [&[usize]; 6] = [
            &[8, 64, 112, 112],
            &[8, 2048, 7, 7],
            &[1, 1, 4096, 4096],
            &[4096, 512],
            &[2, 3, 5],
            &[1, 1, 1, 2],
        ];
        let last: [&[usize]; 3] = [&[8, 56, 56, 256], &[8, 7, 7, 2048], &[2, 5, 3]];
        let first = first.iter().map(|dims| walk(dims, Layout::ChannelsFirst));
        first.chain(last.iter().map(|dims| walk(dims, Layout::ChannelsLast))).collect()
    }

    #[test]
    fn the_policy_comes_first_and_all_differ() {
        for (name, capabilities) in table::ALL {
            for walk in walks() {
                let tunings = candidates(&walk, &capabilities).unwrap();
                assert_eq!(tunings[0], Tuning::default());
                assert!(tunings.len() <= MOST);
                let plan = |tuning: &Tuning| unexplained(plan_walk(&walk, &capabilities, tuning).unwrap());
                let plans: Vec<_> = tunings.iter().map(plan).collect();
                for (at, plan) in plans.iter().enumerate() {
                    assert!(!plans[..at].contains(plan), "{name}: {plan} twice");
                }
            }
        }
    }

    #[test]
    fn large_problems_have_a_choice_of_every_knob() {
        let tunings = candidates(&walk(&[8, 56, 56, 256], Layout::ChannelsLast), &table::LAVAPIPE).unwrap();
        assert!(tunings.iter().any(|tuning| tuning.splits.is_some()));
        assert!(tunings.iter().any(|tuning| tuning.strip.is_some()));
        assert!(tunings.iter().any(|tuning| tuning.team_size.is_some()));
        assert!(tunings.iter().any(|tuning| tuning.workgroup_size.is_some()));
        let tunings = candidates(&walk(&[8, 64, 112, 112], Layout::ChannelsFirst), &table::RTX).unwrap();
        assert!(tunings.len() > 6, "{tunings:?}");
        let trained = Walk { held: Some(1), ..walk(&[8, 512, 28, 28], Layout::ChannelsFirst) };
        let tunings = candidates(&trained, &table::RTX).unwrap();
        assert!(tunings.iter().any(|tuning| tuning.resident == Some(false)), "{tunings:?}");
        let trained = Walk { held: Some(1), ..walk(&[32, 64, 112, 112], Layout::ChannelsFirst) };
        let tunings = candidates(&trained, &table::RTX).unwrap();
        assert!(tunings.iter().any(|tuning| tuning.group_bytes.is_some()), "{tunings:?}");
    }

    #[test]
    fn values_around_are_whole_and_within_limits() {
        assert_eq!(around(8, 16).collect::<Vec<_>>(), [4, 16, 2]);
        assert_eq!(around(1, 8).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(around(6, u32::MAX).collect::<Vec<_>>(), [3, 12, 24]);
        assert_eq!(around(u32::MAX, u32::MAX).count(), 0);
    }
}
