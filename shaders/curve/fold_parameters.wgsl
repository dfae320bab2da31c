// The parameters of every channel as a record: see curve/of_folded.wgsl.
//
// Grid: a team of one per slice. Bindings: those of curve/of_parameters.wgsl; saved: [slices]. Overrides: WORKGROUP_SIZE.
// Features: none.

@group(0) @binding(12) var<storage, read_write> saved: array<FoldedRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_parameters(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    if (tile.live) {
        let s = slice_statistics(tile, workgroups.z - 1u);
        saved[tile.slice] = FoldedRecord(s.alpha, s.shift, s.gamma, s.beta);
    }
}
