// Moments of every tile of every slice of x.
//
//   partials[slice·splits + split] = Moments of the tile's values
//
// Grid: lib/segments.wgsl. Bindings: x: any rank, walked as words; partials: [slices × splits].
// Overrides: WORKGROUP_SIZE 1..=1024, CHUNK_WORDS from 1 to 64 values (see SCALE in lib/moments.wgsl).
// Features: none. Invocation 0 of each workgroup holds and writes the result.

override CHUNK_WORDS: u32 = 16u;

// Chunks that are merged before the result is merged further: rounding errors grow with the number of merges in a row.
const GROUP_CHUNKS: u32 = 16u;

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(10) var<storage, read_write> partials_out: array<Moments>;

// A shift for the first chunk, when nothing is known of the mean.
//
// Sums about a shift lose log2(1 + z²) bits of a chunk's variance, z its distance from the chunk's mean in standard
// deviations. Where the shift is the mean of the chunks before, that is little more than 2 bits of the slice's variance,
// because their distance is part of it. Here, z² is at most half the number of values, since two of them are as far off.
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
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups);
    var at = cursor_first(tile, lane);
    var shift = 0.0;
    if (at.index < tile.end) {
        shift = first_shift(at, words_of_chunk(at, tile, CHUNK_WORDS));
    }
    var mine = identity();
    while (at.index < tile.end) {
        var group = identity();
        for (var chunk = 0u; chunk < GROUP_CHUNKS && at.index < tile.end; chunk += 1u) {
            let words = words_of_chunk(at, tile, CHUNK_WORDS);
            let scaled_shift = Word(-shift * SCALE);
            var sum = Word(0.0);
            var squares = Word(0.0);
            for (var i = 0u; i < words; i += 1u) {
                let e = fma(x[params.x_offset + at.word], Word(SCALE), scaled_shift);
                sum += e;
                squares = fma(e, e, squares);
                at = cursor_next(at);
            }
            group = merge(
                group,
                moments_of_sums(words * WORD_WIDTH, shift, word_sum(sum), word_sum(squares)),
            );
            shift = group.shift;
        }
        mine = merge(mine, group);
        shift = mine.shift;
    }
    let merged = workgroup_merge(lane, mine);
    if (lane == 0u && tile.live) {
        partials_out[tile.slice * params.splits + tile.split] = merged;
    }
}
