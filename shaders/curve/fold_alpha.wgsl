// dalpha and dshift, which are of all slices, from the totals of each (curve/fold_gradients.wgsl):
//
//   dalpha (+)= Σ alpha of the totals        dshift (+)= Σ shift of the totals
//
// Grid: one team, to which all slices are partial results of one: params.records of them. Bindings: total: [records]; dalpha,
// dshift: [1], tensor/parameter_gradient_*.wgsl. Overrides: WORKGROUP_SIZE, TEAM_SIZE. Features: none, or those of
// lib/tree_subgroups.wgsl. Member 0 writes.

@group(0) @binding(11) var<storage, read_write> total: array<Record>;

// Totals that are merged before the result is merged further: rounding errors grow with the number of merges in a row.
const GROUP_TOTALS: u32 = 16u;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_alpha(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = team_of_slice(workgroup, workgroups, lane);
    let totals = select(0u, deciding(zero, params.records), tile.live);
    var mine = identity();
    for (var i = tile.member; i < totals; i += GROUP_TOTALS * TEAM_SIZE) {
        var group = identity();
        let end = min(totals, i + GROUP_TOTALS * TEAM_SIZE);
        for (var j = i; j < end; j += TEAM_SIZE) {
            group = merge(group, with_record(identity(), 0u, total[j]));
        }
        mine = merge(mine, group);
    }
    let sums = team_merge(tile, mine);
    if (writes(tile, 0u)) {
        if (flag(zero, FLAG_DALPHA)) {
            put_dalpha(params.dalpha_offset, component(sums.alpha, 0u), flag(zero, FLAG_ACCUMULATE));
        }
        if (flag(zero, FLAG_DSHIFT)) {
            put_dshift(params.dshift_offset, component(sums.shift, 0u), flag(zero, FLAG_ACCUMULATE));
        }
    }
}
