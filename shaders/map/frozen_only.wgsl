// dx through frozen statistics alone, without the parameter gradients: reads dy, not x.
// The formula is in map/frozen.wgsl.
//
// Grid: walk/. Bindings: dy: any rank, walked as words; dx: map/dx.wgsl. Overrides: WORKGROUP_SIZE,
// TEAM_SIZE, EDGES. Features: none.

@group(0) @binding(2) var<storage, $INPUT> dy: array<Word>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_frozen(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRIP>;
    for (var j = 0u; j < STRIP; j += 1u) {
        s[j] = slice_statistics(strip_tile(tile, j), zero);
    }
    for (var at = cursor_first(tile); at.index < tile.end; at = cursor_next(at)) {
        for (var j = 0u; j < STRIP; j += 1u) {
            let here = strip_cursor(at, j);
            emit_dx(here, dy[params.dy_offset + here.word], s[j]);
        }
    }
    for (var j = 0u; j < STRIP; j += 1u) {
        emit_dx_edges(strip_tile(tile, j), s[j]);
    }
}
