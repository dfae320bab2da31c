// Moments of every tile of every slice of x.
//
//   partials[slice·splits + split] = Moments of the tile's values
//
// Grid: lib/segments.wgsl. Bindings: x: any rank, walked as words; partials: [slices × splits].
// Overrides: WORKGROUP_SIZE 1..=1024, CHUNK_WORDS 1..=16 (64 values, see SCALE in lib/moments.wgsl).
// Features: none. Invocation 0 of each workgroup holds and writes the result.

override CHUNK_WORDS: u32 = 16u;

// Distance of shift and mean, in standard deviations, from which a chunk is summed again. At 2, sums lose little more
// than 2 bits, and 1 in 20 first chunks of normal data is summed twice.
const FAR: f32 = 2.0;

// Chunks that are merged before the result is merged further: rounding errors grow with the number of merges in a row.
const GROUP_CHUNKS: u32 = 16u;

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(10) var<storage, read_write> partials_out: array<Moments>;

// Moments of the `words` words of one invocation from `start`, by sums about `shift`.
fn chunk_moments(start: Cursor, words: u32, shift: f32) -> Moments {
    let scaled_shift = Word(-shift * SCALE);
    var at = start;
    var sum = Word(0.0);
    var squares = Word(0.0);
    for (var i = 0u; i < words; i += 1u) {
        let e = fma(x[params.x_offset + at.word], Word(SCALE), scaled_shift);
        sum += e;
        squares = fma(e, e, squares);
        at = cursor_next(at);
    }
    return moments_of_sums(words * WORD_WIDTH, shift, word_sum(sum), word_sum(squares));
}

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
        var chunks = identity();
        for (var i = 0u; i < GROUP_CHUNKS && at.index < tile.end; i += 1u) {
            // Short chunks keep the sums accurate. Their shift is the mean so far, at first the first value.
            let words = words_of_chunk(at, tile, CHUNK_WORDS);
            var shift = chunks.shift;
            if (i == 0u) {
                shift = mine.shift;
                if (mine.count.x == 0u) {
                    shift = word_first(x[params.x_offset + at.word]);
                }
            }
            var chunk = chunk_moments(at, words, shift);
            // The difference of squares has lost digits if the shift turns out to lie far from the chunk's mean: an
            // outlier came first, or the values have drifted. Then once more about the mean, from the cache.
            let off = (chunk.shift - shift) + chunk.delta;
            if (abs(off) > FAR * sqrt(max(chunk.variance, 0.0))) {
                chunk = chunk_moments(at, words, chunk.shift);
            }
            chunks = merge(chunks, chunk);
            at = cursor_at(tile.slice, at.index + words * WORKGROUP_SIZE);
        }
        mine = merge(mine, chunks);
    }
    let merged = workgroup_merge(lane, mine);
    if (lane == 0u && tile.live) {
        partials_out[tile.slice * params.splits + tile.split] = merged;
    }
}
