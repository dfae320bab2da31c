// y = x, the plainest map: the yardstick that the benchmark holds every kernel against; or y = x + addend (lib/value_of_sum.wgsl).
//
// Grid: walk/segments.wgsl, the window as one slice of one run. Bindings: x, y: tensor/. Overrides:
// WORKGROUP_SIZE, TEAM_SIZE, EDGES. Features: none.

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups, lane);
    if (!EDGES) {
        var at = cursor_first(tile);
        for (var i = tile.begin + tile.member; i < tile.end; i += TEAM_SIZE) {
            at.word = i;
            store_y(at, value_at(at));
        }
        return;
    }
    for (var at = cursor_first(tile); at.index < tile.end; at = cursor_next(at)) {
        if (stores(at)) {
            store_y(at, value_at(at));
        }
    }
    for (var edge = 0u; edge < 2u; edge += 1u) {
        let at = cursor_of_edge(tile, edge);
        if (at.index < tile.end) {
            store_part_y(at, value_at(at));
        }
    }
}
