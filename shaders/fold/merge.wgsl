// Merges two values slice by slice, of whatever monoid the kernel includes: total[slice] = total[slice] ⊕ partials[slice].
//
// Grid: a team of one per slice. Bindings: partials: [slices], the right side; total: [slices], the left
// side and the result.
// Overrides: WORKGROUP_SIZE. Features: none.

@group(0) @binding(9) var<storage, read> partials: array<Record>;
@group(0) @binding(11) var<storage, read_write> total: array<Record>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_merge(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    if (tile.live) {
        let left = with_record(identity(), 0u, total[tile.slice]);
        let right = with_record(identity(), 0u, partials[tile.slice]);
        total[tile.slice] = record_of_component(merge(left, right), 0u);
    }
}
