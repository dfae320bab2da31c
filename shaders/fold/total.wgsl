// The total of every slice as a value of its own (public types `Moments` and `GradientSums`), from partial results; or the average of records of
// slices, as moments (lib/slice_averages.wgsl).
//
// Grid: one team per slice. Bindings: partials (fold/partials.wgsl); total: [slices]. Overrides:
// WORKGROUP_SIZE, TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl. Member 0 of each team writes.

@group(0) @binding(11) var<storage, read_write> total: array<Total>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_total(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = team_of_slice(workgroup, workgroups, lane);
    let folded = fold_partials(tile, workgroups.z - 1u);
    if (writes(tile, 0u)) {
        total[tile.slice] = record_of_component(folded, 0u);
    }
}
