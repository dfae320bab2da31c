// Moments of every tile of every slice of x.
//
//   partials[slice·splits + split] = Moments of the tile's values
//
// Grid: lib/segments.wgsl. Bindings: x: any rank, walked as words; partials: [slices × splits].
// Overrides: WORKGROUP_SIZE 1..=1024, CHUNK_WORDS 1..=16 (64 values, see SCALE in lib/moments.wgsl).
// Features: none. Invocation 0 of each workgroup holds and writes the result.

override CHUNK_WORDS: u32 = 16u;

// Distance of shift and mean, in standard deviations, from which a chunk is summed again. At 2, sums lose little more
// than 2 bits, and 1 in 300 first chunks of normal data is summed twice.
const FAR: f32 = 2.0;

// Chunks that are merged before the result is merged further: rounding errors grow with the number of merges in a row.
const GROUP_CHUNKS: u32 = 16u;

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(10) var<storage, read_write> partials_out: array<Moments>;

// Moments of the next `words` words of one invocation, by sums about `shift`. Advances the cursor.
fn chunk_moments(cursor: ptr<function, Cursor>, words: u32, shift: f32) -> Moments {
    let scaled_shift = Word(-shift * SCALE);
    var at = *cursor;
    var sum = Word(0.0);
    var squares = Word(0.0);
    for (var i = 0u; i < words; i += 1u) {
        let e = fma(x[params.x_offset + at.word], Word(SCALE), scaled_shift);
        sum += e;
        squares = fma(e, e, squares);
        at = cursor_next(at);
    }
    *cursor = at;
    return moments_of_sums(words * WORD_WIDTH, shift, word_sum(sum), word_sum(squares));
}

// A shift for the first chunk, when nothing is known of the mean.
fn first_shift(first: Cursor, words: u32) -> f32 {
    var second = first;
    var third = first;
    if (words >= 3u) {
        second = cursor_next(first);
        third = cursor_next(second);
    }
    return word_median(
        x[params.x_offset + first.word],
        x[params.x_offset + second.word],
        x[params.x_offset + third.word],
    );
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_moments(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(group, groups);
    var at = cursor_first(tile, lane);
    var shift = 0.0;
    if (at.index < tile.end) {
        shift = first_shift(at, words_of_chunk(at, tile, CHUNK_WORDS));
    }
    var mine = identity();
    var again = false;
    while (at.index < tile.end) {
        var chunks = identity();
        for (var i = 0u; i < GROUP_CHUNKS && at.index < tile.end; i += 1u) {
            // Short chunks keep the sums accurate, and a shift near the mean: that of the chunks before.
            var next = at;
            let chunk = chunk_moments(&next, words_of_chunk(at, tile, CHUNK_WORDS), shift);
            // The difference of squares has lost digits if the shift turns out to lie far from the chunk's mean: an
            // outlier came first, or the values have drifted. Then once more about the mean, from the cache.
            let off = (chunk.shift - shift) + chunk.delta;
            again = !again && abs(off) > FAR * sqrt(max(chunk.variance, 0.0));
            if (again) {
                shift = chunk.shift;
            } else {
                chunks = merge(chunks, chunk);
                shift = chunks.shift;
                at = next;
            }
        }
        mine = merge(mine, chunks);
    }
    let merged = workgroup_merge(lane, mine);
    if (lane == 0u && tile.live) {
        partials_out[tile.slice * params.splits + tile.split] = merged;
    }
}
