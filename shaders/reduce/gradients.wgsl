// Gradient sums of every tile of every slice, and on the way, where the statistics are frozen, dx.
//
//   partials[slice·splits + split] = (Σ dy, Σ dy·x̂) over the tile
//
// Through frozen statistics dx does not depend on the sums, so one walk gives all gradients: what
// `emit_dx` does with each word is decided by the included file (map/frozen.wgsl or map/no_dx.wgsl).
// Where the statistics come from likewise (fold/saved.wgsl or fold/running.wgsl).
//
// Grid: lib/segments.wgsl. Bindings: x, dy: any rank, walked as words; partials: [slices × splits].
// Overrides: WORKGROUP_SIZE 1..=1024, CHUNK_WORDS from 1. Features: none.
// Invocation 0 of each workgroup holds and writes the sums.

override CHUNK_WORDS: u32 = 16u;

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(2) var<storage, $INPUT> dy: array<Word>;
@group(0) @binding(10) var<storage, read_write> partials_out: array<GradientSums>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_gradients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups);
    let s = slice_statistics(tile, lane);
    var at = cursor_first(tile, lane);
    var mine = identity();
    while (at.index < tile.end) {
        // Sums of short chunks, then the sum of those: the error of a long sum grows with the
        // length of a chunk plus the number of chunks, not with their product.
        var sum_dy = Word(0.0);
        var sum_dy_xhat = Word(0.0);
        let words = words_of_chunk(at, tile, CHUNK_WORDS);
        for (var i = 0u; i < words; i += 1u) {
            let upstream = dy[params.dy_offset + at.word];
            let xhat = normalized(x[params.x_offset + at.word], s);
            sum_dy += upstream;
            sum_dy_xhat = fma(upstream, xhat, sum_dy_xhat);
            emit_dx(at.word, upstream, s);
            at = cursor_next(at);
        }
        mine = merge(mine, GradientSums(word_sum(sum_dy), word_sum(sum_dy_xhat)));
    }
    let merged = workgroup_merge(lane, mine);
    if (lane == 0u && tile.live) {
        partials_out[tile.slice * params.splits + tile.split] = merged;
    }
}
