// Running statistics, or what a curve has in their place, as records like those that forward saves: for a backward pass whose tensors leave no
// binding for their parts.
//
// Grid: a team of one per slice. Bindings: those of fold/running.wgsl or curve/of_parameters.wgsl; saved: [slices]. Overrides: WORKGROUP_SIZE.
// Features: none.

@group(0) @binding(12) var<storage, read_write> saved: array<StatisticsRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_records(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    if (tile.live) {
        let s = slice_statistics(tile, workgroups.z - 1u);
        saved[tile.slice] = StatisticsRecord(s.shift, s.delta, s.inv_std, 0.0, s.gamma, s.beta, 0u, 0.0, 1.0, 0.0);
    }
}
