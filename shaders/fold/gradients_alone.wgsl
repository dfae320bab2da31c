// dgamma and dbeta where no dispatch follows whose prologue could write them: frozen statistics, or
// dx not asked for.
//
// Grid: one team per slice. Bindings: those of fold/gradients.wgsl. Overrides: WORKGROUP_SIZE,
// TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl.

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_gradients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    fold_gradients_of(team_of_slice(workgroup, workgroups, lane), workgroups.z - 1u);
}
