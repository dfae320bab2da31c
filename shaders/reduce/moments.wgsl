// Moments of every tile of every slice of x.
//
//   partials[slice·splits + split] = Moments of the tile's values
//
// Grid: lib/segments.wgsl. Bindings: x: any rank, walked as words; partials: [slices × splits].
// Overrides: WORKGROUP_SIZE 1..=1024, CHUNK_WORDS 1..=16 (64 values, see SCALE in lib/moments.wgsl).
// Features: none. Invocation 0 of each workgroup holds and writes the result.

override CHUNK_WORDS: u32 = 16u;

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(10) var<storage, read_write> partials_out: array<Moments>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_moments(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(group, groups);
    var at = cursor_first(tile, lane);
    var mine = identity();
    while (at.index < tile.end) {
        // One chunk: sums about its own first value, then merged. Short chunks keep the sums
        // accurate, their own shift keeps an outlier's damage to one chunk.
        let words = words_of_chunk(at, tile, CHUNK_WORDS);
        let first = x[params.x_offset + at.word];
        let shift = word_first(first);
        let scaled_shift = Word(-shift * SCALE);
        var sum = fma(first, Word(SCALE), scaled_shift);
        var squares = sum * sum;
        at = cursor_next(at);
        for (var i = 1u; i < words; i += 1u) {
            let e = fma(x[params.x_offset + at.word], Word(SCALE), scaled_shift);
            sum += e;
            squares = fma(e, e, squares);
            at = cursor_next(at);
        }
        mine = merge(
            mine,
            moments_of_sums(words * WORD_WIDTH, shift, word_sum(sum), word_sum(squares)),
        );
    }
    let merged = workgroup_merge(lane, mine);
    if (lane == 0u && tile.live) {
        partials_out[tile.slice * params.splits + tile.split] = merged;
    }
}
