// The moments of every slice as a value of their own (public type `Moments`), from partial moments.
//
// Grid: one team per slice. Bindings: partials (fold/moments.wgsl); moments: [slices]. Overrides:
// WORKGROUP_SIZE, TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl. Member 0 of each team writes.

@group(0) @binding(11) var<storage, read_write> moments: array<MomentsRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    let folded = fold_moments_of(tile, workgroups.z - 1u);
    if (writes(tile, 0u)) {
        moments[tile.slice] = record_of_component(folded, 0u);
    }
}
