// y = x̂·gamma + beta, x̂ = ((x − shift) − delta)·inv_std.
//
// Training and inference differ in where `slice_statistics` comes from (fold/batch.wgsl,
// fold/running.wgsl) and in nothing else.
//
// Grid: lib/segments.wgsl. Bindings: x, y: any rank, walked as words. Overrides: WORKGROUP_SIZE.
// Features: none.

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups);
    let s = slice_statistics(tile, lane);
    // One rounding less than (centred·inv_std)·gamma.
    let scale = Word(s.inv_std * s.gamma);
    for (var at = cursor_first(tile, lane); at.index < tile.end; at = cursor_next(at)) {
        y[params.y_offset + at.word] =
            fma(centred(x[params.x_offset + at.word], s), scale, Word(s.beta));
    }
}
