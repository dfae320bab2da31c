// dx and d_residual through frozen statistics alone, without the parameter gradients: reads x only where an activation
// needs it. The formulas are in map/frozen.wgsl and map/d_residual.wgsl.
//
// Grid: walk/. Bindings: x, dy, residual: tensor/. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED. Features: none.

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
            if (stores(here)) {
                let dz = dz_of(here, operand_at(here), s[j]);
                emit_d_residual(here, dz);
                emit_dx(here, dz, s[j]);
            }
        }
    }
    for (var j = 0u; j < STRIP; j += 1u) {
        emit_d_residual_edges(strip_tile(tile, j), s[j]);
        emit_dx_edges(strip_tile(tile, j), s[j]);
    }
}
