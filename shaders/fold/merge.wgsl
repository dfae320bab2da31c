// Merges two moments values slice by slice: moments[slice] = moments[slice] ⊕ partials[slice].
//
// Grid: a team of one per slice. Bindings: partials: [slices], the right side; moments: [slices], the left
// side and the result.
// Overrides: WORKGROUP_SIZE. Features: none.

@group(0) @binding(9) var<storage, read> partials: array<MomentsRecord>;
@group(0) @binding(11) var<storage, read_write> moments: array<MomentsRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn merge_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    if (tile.live) {
        let left = with_record(identity(), 0u, moments[tile.slice]);
        let right = with_record(identity(), 0u, partials[tile.slice]);
        moments[tile.slice] = record_of_component(merge(left, right), 0u);
    }
}
