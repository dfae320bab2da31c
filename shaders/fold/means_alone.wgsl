// The means of every slice, or group of slices, from partial gradient sums, with its statistics as one record for the maps that follow.
//
// Grid: one team per statistic. Bindings: partials (fold/partials.wgsl); saved: [statistics]; means: [statistics]. Overrides:
// WORKGROUP_SIZE, TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl. Member 0 of each team writes.

@group(0) @binding(13) var<storage, read> saved: array<SliceRecord>;
@group(0) @binding(20) var<storage, read_write> means: array<MeansRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_means(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = team_of_slice(workgroup, workgroups, lane);
    let sums = fold_partials(tile, zero);
    if (writes(tile, 0u)) {
        let record = saved[tile.slice];
        let s = with_means(zero, without_statistics(), sums, record);
        means[tile.slice] = MeansRecord(record, component(s.mean_dz, 0u), component(s.mean_dz_xhat, 0u));
    }
}
