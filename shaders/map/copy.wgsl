// y = x, the plainest map: the yardstick that the benchmark holds every kernel against.
//
// Grid: lib/segments.wgsl, the whole tensor as one slice of one run. Bindings: x, y: walked as
// words. Overrides: WORKGROUP_SIZE. Features: none.

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(3) var<storage, read_write> y: array<Word>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn map_copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups);
    for (var i = tile.begin + lane; i < tile.end; i += WORKGROUP_SIZE) {
        y[params.y_offset + i] = x[params.x_offset + i];
    }
}
