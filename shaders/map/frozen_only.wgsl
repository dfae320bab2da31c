// dx through frozen statistics alone, without the parameter gradients: reads dy, not x.
// The formula is `emit_dx` of map/frozen.wgsl.
//
// Grid: lib/segments.wgsl. Bindings: dy: any rank, walked as words. Overrides: WORKGROUP_SIZE.
// Features: none.

@group(0) @binding(2) var<storage, $INPUT> dy: array<Word>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_frozen(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups);
    let s = slice_statistics(tile, lane);
    for (var at = cursor_first(tile, lane); at.index < tile.end; at = cursor_next(at)) {
        emit_dx(at.word, dy[params.dy_offset + at.word], s);
    }
}
