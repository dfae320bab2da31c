// As lib/tree.wgsl, with shuffles within subgroups and workgroup memory between them.
//
// A binary tree over the members of a team in their order. Where the bounds of subgroups fall does not change its shape, so
// neither does their size change the bits. After each round every subgroup goes on with what all have found, so one round
// trip through workgroup memory serves teams of up to SUBGROUP_SIZE² members, and the result is valid in every member.
//
// Invocations are in the order of their index in subgroups of SUBGROUP_SIZE (gpu/probe.rs has found that out); sizes are
// powers of two. Features: SUBGROUP (no `enable subgroups`: naga has none). Monoids define `shuffled` in
// lib/*_shuffled.wgsl.

override SUBGROUP_SIZE: u32 = 32u;
// Members of a team in a subgroup.
override SUBGROUP_MEMBERS: u32 = min(TEAM_SIZE, max(SUBGROUP_SIZE / MEMBER_DISTANCE, 1u));

// The values of all teams, members of one place side by side.
var<workgroup> tree: array<Partial, WORKGROUP_SIZE>;

// Merges the values of `members` neighbouring members, a power of two; the result is valid in all of them.
fn subgroup_merge(tile: Tile, mine: Partial, members: u32) -> Partial {
    let lane = lane_of(tile) % SUBGROUP_SIZE;
    var merged = mine;
    for (var distance = 1u; distance < members; distance *= 2u) {
        let other = shuffled(merged, (lane + distance * MEMBER_DISTANCE) % SUBGROUP_SIZE);
        if (tile.member % (2u * distance) == 0u) {
            merged = merge(merged, other);
        }
    }
    return shuffled(merged, lane - tile.member % members * MEMBER_DISTANCE);
}

// Merges the values of a team; the result is valid in every member.
fn team_merge_all(tile: Tile, mine: Partial) -> Partial {
    if (TEAM_SIZE == 1u) {
        return mine;
    }
    var members = SUBGROUP_MEMBERS;
    var merged = subgroup_merge(tile, mine, members);
    // Partial results of the team that are left.
    var width = TEAM_SIZE / members;
    while (width > 1u) {
        // What was found before may still be read.
        workgroupBarrier();
        if (tile.member < width * members && tile.member % members == 0u) {
            tree[tile.member / members * TEAMS + tile.team] = merged;
        }
        workgroupBarrier();
        merged = tree[tile.member % width * TEAMS + tile.team];
        members = min(width, SUBGROUP_MEMBERS);
        merged = subgroup_merge(tile, merged, members);
        width /= members;
    }
    return merged;
}

fn team_merge(tile: Tile, mine: Partial) -> Partial {
    return team_merge_all(tile, mine);
}
