// dalpha and dshift, which are of all slices, from the totals of each (curve/fold_gradients.wgsl):
//
//   dalpha (+)= Σ alpha of the totals        dshift (+)= Σ shift of the totals
//
// Grid: one team, to which the totals are partial results. Bindings: partials (fold/partials.wgsl); dalpha, dshift: [1],
// tensor/parameter_gradient_*.wgsl. Overrides: WORKGROUP_SIZE, TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl.
// Member 0 writes.

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_alpha(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = team_of_slice(workgroup, workgroups, lane);
    let sums = fold_partials(tile, zero);
    if (writes(tile, 0u)) {
        if (flag(zero, FLAG_DALPHA)) {
            put_dalpha(params.dalpha_offset, component(sums.alpha, 0u), flag(zero, FLAG_ACCUMULATE));
        }
        if (flag(zero, FLAG_DSHIFT)) {
            put_dshift(params.dshift_offset, component(sums.shift, 0u), flag(zero, FLAG_ACCUMULATE));
        }
    }
}
