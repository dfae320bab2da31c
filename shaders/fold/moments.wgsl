// Partial moments of a slice to its moments.
//
// `fold_moments_of` is the prologue of every dispatch that follows reduce_moments; the entry point
// `fold_moments` writes the result as a value of its own (public type `Moments`).
//
//   moments[slice] = partials[slice·P] ⊕ … ⊕ partials[slice·P + P − 1],  P = params.partials
//
// Grid of the entry point: one workgroup per slice. Bindings: partials: [slices × P];
// moments: [slices]. Overrides: WORKGROUP_SIZE. Features: none. Every invocation holds the result.

@group(0) @binding(9) var<storage, read> partials: array<Moments>;
@group(0) @binding(11) var<storage, read_write> moments: array<Moments>;

fn fold_moments_of(slice: u32, lane: u32) -> Moments {
    let first = slice * params.partials;
    if (params.partials == 1u) {
        return partials[first];
    }
    var mine = identity();
    for (var i = lane; i < params.partials; i += WORKGROUP_SIZE) {
        mine = merge(mine, partials[first + i]);
    }
    workgroup_merge(lane, mine);
    return workgroup_merged();
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = slice_of(workgroup, workgroups);
    let folded = fold_moments_of(tile.slice, lane);
    if (lane == 0u && tile.live) {
        moments[tile.slice] = folded;
    }
}
