// Partial results of a slice, of whatever monoid the kernel includes, to its total.
//
// `fold_partials` is the prologue of every map that follows a reduction, or a dispatch of its own (fold/total.wgsl).
//
//   total of slice = partials[slice] ⊕ partials[slices + slice] ⊕ …,  params.partials of them
//
// Bindings: partials: [params.partials × slices]. Every member of a team holds the result.

@group(0) @binding(9) var<storage, read> partials: array<Record>;

// Partial results that are merged before the result is merged further: rounding errors grow with the number of merges in
// a row.
const GROUP_PARTIALS: u32 = 16u;

fn partial_of(tile: Tile, i: u32) -> Partial {
    var partial = identity();
    for (var k = 0u; k < STATS; k += 1u) {
        partial = with_record(partial, k, partials[i * params.slices + slice_of(tile, k)]);
    }
    return partial;
}

fn fold_partials(tile: Tile, zero: u32) -> Partial {
    let partials_of_slice = deciding(zero, params.partials);
    if (partials_of_slice == 1u) {
        return partial_of(tile, 0u);
    }
    var mine = identity();
    for (var i = tile.member; i < partials_of_slice; i += GROUP_PARTIALS * TEAM_SIZE) {
        var group = identity();
        let end = min(partials_of_slice, i + GROUP_PARTIALS * TEAM_SIZE);
        for (var j = i; j < end; j += TEAM_SIZE) {
            group = merge(group, partial_of(tile, j));
        }
        mine = merge(mine, group);
    }
    return team_merge_all(tile, mine);
}
