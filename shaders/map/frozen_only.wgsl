// dx and d_residual alone, without the parameter gradients: reads x only where an activation, or a curve, needs it. What is done is
// in map/frozen.wgsl and map/d_residual.wgsl.
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
    var s: array<Statistics, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        s[strand] = slice_statistics(strand_tile(tile, strand), zero);
    }
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        var here = at;
        for (var j = 0u; j < STRIP; j += 1u) {
            if (stores(here)) {
                let strand = strand_of(j);
                let x = operand_at(here);
                let dz = dz_of(here, x, s[strand]);
                emit_d_residual(here, dz);
                emit_dx(here, x, dz, s[strand]);
            }
            here = strip_next(at, here, j);
        }
        at = step_next(at, here);
    }
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        emit_d_residual_edges(strand_tile(tile, strand), s[strand]);
        emit_dx_edges(strand_tile(tile, strand), s[strand]);
    }
}
