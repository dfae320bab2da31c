// Partial moments of a slice to its moments.
//
// `fold_moments_of` is the prologue of every dispatch that follows reduce_moments.
//
//   moments of slice = partials[slice] ⊕ partials[slices + slice] ⊕ …,  params.partials of them
//
// Bindings: partials: [params.partials × slices]. Every member of a team holds the result.

@group(0) @binding(9) var<storage, read> partials: array<MomentsRecord>;

// Partial results that are merged before the result is merged further: rounding errors grow with the number of merges in
// a row.
const GROUP_PARTIALS: u32 = 16u;

fn partial_moments(tile: Tile, i: u32) -> Moments {
    var m = identity();
    for (var k = 0u; k < STATS; k += 1u) {
        m = with_record(m, k, partials[i * params.slices + slice_of(tile, k)]);
    }
    return m;
}

fn fold_moments_of(tile: Tile, zero: u32) -> Moments {
    let partials_of_slice = deciding(zero, params.partials);
    if (partials_of_slice == 1u) {
        return partial_moments(tile, 0u);
    }
    var mine = identity();
    for (var i = tile.member; i < partials_of_slice; i += GROUP_PARTIALS * TEAM_SIZE) {
        var group = identity();
        let end = min(partials_of_slice, i + GROUP_PARTIALS * TEAM_SIZE);
        for (var j = i; j < end; j += TEAM_SIZE) {
            group = merge(group, partial_moments(tile, j));
        }
        mine = merge(mine, group);
    }
    return team_merge_all(tile, mine);
}
