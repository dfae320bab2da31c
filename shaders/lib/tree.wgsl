// Reduction over a team of whatever monoid the kernel includes (`Partial`, `merge`).
//
// A tree of radix 8: at most four levels and as many barriers instead of log2(TEAM_SIZE). The shape
// depends on TEAM_SIZE alone, so the bits do not change from run to run. A team of one has no tree.

const TREE_RADIX: u32 = 8u;

// The values of all teams, members of one place side by side.
var<workgroup> tree: array<Partial, WORKGROUP_SIZE>;

// Merges the values of a team; the result is valid in its member 0.
fn team_merge(tile: Tile, mine: Partial) -> Partial {
    if (TEAM_SIZE == 1u) {
        return mine;
    }
    if (STRANDS > 1u) {
        // The tree may still be read for the word before.
        workgroupBarrier();
    }
    var merged = mine;
    tree[tile.member * TEAMS + tile.team] = mine;
    var width = TEAM_SIZE;
    while (width > 1u) {
        let next = (width + TREE_RADIX - 1u) / TREE_RADIX;
        workgroupBarrier();
        // Member i merges i, i + next, i + 2·next, …: nobody else reads what it overwrites.
        if (tile.member < next) {
            for (var i = tile.member + next; i < width; i += next) {
                merged = merge(merged, tree[i * TEAMS + tile.team]);
            }
            tree[tile.member * TEAMS + tile.team] = merged;
        }
        width = next;
    }
    return merged;
}

// As `team_merge`; the result is valid in every member.
fn team_merge_all(tile: Tile, mine: Partial) -> Partial {
    let merged = team_merge(tile, mine);
    if (TEAM_SIZE == 1u) {
        return merged;
    }
    workgroupBarrier();
    return tree[tile.team];
}
