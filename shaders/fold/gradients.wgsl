// Partial gradient sums of a slice to its sums, and from them dgamma and dbeta (fold/sums.wgsl).
//
// `fold_gradients_of` is the prologue of map_backward, or a dispatch of its own
// (fold/gradients_alone.wgsl).
//
// Bindings: partials: [params.partials × slices]. Every member of a team holds the sums.

@group(0) @binding(9) var<storage, read> partials: array<GradientSumsRecord>;

fn partial_sums(tile: Tile, i: u32) -> GradientSums {
    var sums = identity();
    for (var k = 0u; k < STATS; k += 1u) {
        let record = partials[i * params.slices + slice_of(tile, k)];
        sums.dz = with_component(sums.dz, k, record.dz);
        sums.dz_xhat = with_component(sums.dz_xhat, k, record.dz_xhat);
    }
    return sums;
}

fn fold_gradients_of(tile: Tile, zero: u32) -> GradientSums {
    let partials_of_slice = deciding(zero, params.partials);
    var sums: GradientSums;
    if (partials_of_slice == 1u) {
        sums = partial_sums(tile, 0u);
    } else {
        var mine = identity();
        for (var i = tile.member; i < partials_of_slice; i += TEAM_SIZE) {
            mine = merge(mine, partial_sums(tile, i));
        }
        sums = team_merge_all(tile, mine);
    }
    write_sums(tile, zero, sums);
    return sums;
}
