// Partial gradient sums of a slice to its sums, and from them dgamma and dbeta.
//
// `fold_gradients_of` is the prologue of map_backward; the entry point `fold_gradients` serves
// where no dispatch follows that could do it (frozen statistics, or dx not asked for).
//
//   dgamma[slice] (+)= Σ dy·x̂        dbeta[slice] (+)= Σ dy
//
// Grid of the entry point: one workgroup per slice. Bindings: partials: [slices × P];
// dgamma, dbeta: [slices]. Overrides: WORKGROUP_SIZE. Features: none. Every invocation holds the
// sums; invocation 0 of split 0 writes.

@group(0) @binding(9) var<storage, read> partials: array<GradientSums>;
@group(0) @binding(14) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(15) var<storage, read_write> dbeta: array<f32>;

fn fold_gradients_of(tile: Tile, lane: u32) -> GradientSums {
    let first = tile.slice * params.partials;
    var sums: GradientSums;
    if (params.partials == 1u) {
        sums = partials[first];
    } else {
        var mine = identity();
        for (var i = lane; i < params.partials; i += WORKGROUP_SIZE) {
            mine = merge(mine, partials[first + i]);
        }
        workgroup_merge(lane, mine);
        sums = workgroup_merged();
    }
    if (lane == 0u && tile.split == 0u && tile.live) {
        if (flag(FLAG_DGAMMA)) {
            let at = params.dgamma_offset + tile.slice;
            var old = 0.0;
            if (flag(FLAG_ACCUMULATE)) {
                old = dgamma[at];
            }
            dgamma[at] = old + sums.dy_xhat;
        }
        if (flag(FLAG_DBETA)) {
            let at = params.dbeta_offset + tile.slice;
            var old = 0.0;
            if (flag(FLAG_ACCUMULATE)) {
                old = dbeta[at];
            }
            dbeta[at] = old + sums.dy;
        }
    }
    return sums;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn fold_gradients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    fold_gradients_of(slice_of(workgroup, workgroups), lane);
}
