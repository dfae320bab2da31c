// Partial gradient sums of every slice to dgamma and dbeta (fold/gradients.wgsl), and to totals, which curve/fold_alpha.wgsl sums over
// the slices.
//
// Grid: one team per slice. Bindings: those of fold/gradients.wgsl; total: [slices]. Overrides: WORKGROUP_SIZE, TEAM_SIZE.
// Features: none, or those of lib/tree_subgroups.wgsl.

@group(0) @binding(11) var<storage, read_write> total: array<Record>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_curve(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    let sums = fold_gradients_of(tile, workgroups.z - 1u);
    if (writes(tile, 0u)) {
        total[tile.slice] = record_of_component(sums, 0u);
    }
}
