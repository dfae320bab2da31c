// Partial results of a slice, of whatever monoid the kernel includes, to its total.
//
// `fold_partials` is the prologue of every map that follows a reduction, or a dispatch of its own (fold/total.wgsl).
//
//   total of slice = partial_of(0) ⊕ partial_of(1) ⊕ …,  params.partials of them
//
// Which these are says fold/partial_of_slice.wgsl or fold/partial_of_group.wgsl. Every member of a team holds the result.

// Partial results that are merged before the result is merged further: rounding errors grow with the number of merges in
// a row.
const GROUP_PARTIALS: u32 = 16u;

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
