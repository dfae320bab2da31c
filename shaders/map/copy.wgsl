// y = x, the plainest map: the yardstick that the benchmark holds every kernel against.
//
// Grid: walk/segments.wgsl, the whole tensor as one slice of one run. Bindings: x: walked as words;
// y: map/y.wgsl. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES. Features: none.

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups, lane);
    if (!EDGES) {
        for (var i = tile.begin + tile.member; i < tile.end; i += TEAM_SIZE) {
            out[params.y_offset + i] = x[params.x_offset + i];
        }
        return;
    }
    for (var at = cursor_first(tile); at.index < tile.end; at = cursor_next(at)) {
        store(at, x[params.x_offset + at.word]);
    }
    for (var edge = 0u; edge < 2u; edge += 1u) {
        let at = cursor_of_edge(tile, edge);
        if (at.index < tile.end) {
            store_part(at, x[params.x_offset + at.word]);
        }
    }
}
