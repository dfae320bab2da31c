// Statistics of every slice, or group of slices, from partial moments, as records: no prologue of a map where slices share them or are columns, or
// where r and d of batch renorm come from the running statistics that the same dispatch updates.
//
// Grid: one team per statistic. Bindings: those of fold/partials.wgsl and fold/slices.wgsl or fold/batch.wgsl. Overrides: WORKGROUP_SIZE,
// TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl. Member 0 of each team writes.

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_statistics(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = team_of_slice(workgroup, workgroups, lane);
    batch_statistics(tile, zero, fold_partials(tile, zero));
}
