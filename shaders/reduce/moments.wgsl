// Moments of every tile of every slice of x.
//
//   partials[split·records + record] = Moments of the tile's values
//
// Grid: walk/. Bindings: x: tensor/input.wgsl; partials: [splits × records].
// Overrides: WORKGROUP_SIZE 1..=1024, TEAM_SIZE a divisor of it, EDGES, CHUNK_WORDS from 1 to 64
// values (see SCALE in lib/accumulate.wgsl). Features: none. Member 0 of each team holds and writes
// the result.

override CHUNK_WORDS: u32 = 16u;

// Chunks that are merged before the result is merged further: rounding errors grow with the number of merges in a row.
const GROUP_CHUNKS: u32 = 16u;

// Words of the first chunk: fewer, because its shift is a guess, and sums about a shift far from the mean grow, and their
// rounding errors with them.
const FIRST_WORDS: u32 = 8u;
const F32_MAX: f32 = 0x1.fffffep+127f;

@group(0) @binding(10) var<storage, read_write> partials_out: array<MomentsRecord>;

// A shift and where it may move after the first chunk.
struct Guess {
    shift: Stat,
    low: Stat,
    high: Stat,
}

// A shift for the first chunk, when nothing is known of the mean: the median of values of the first three words, so that
// one outlier is not taken; for the second, the mean of the first, but no farther from the median than the nearer of the
// other two values, so that an outlier in the first chunk is not taken either.
//
// Sums about a shift lose log2(1 + z²) bits of a chunk's variance, z its distance from the chunk's mean in standard
// deviations. Where the shift is the mean of the chunks before, that is little more than 2 bits of the slice's variance,
// because their distance is part of it. Here, z² is at most half the number of values, since two of them are as far off.
fn first_guess(start: Cursor, words: u32, j: u32) -> Guess {
    var next = start;
    let first = strip_cursor(next, j);
    if (words >= 2u) {
        next = cursor_next(next);
    }
    let second = strip_cursor(next, j);
    if (words >= 3u) {
        next = cursor_next(next);
    }
    let third = strip_cursor(next, j);
    let word_a = x_at(first);
    let word_b = x_at(second);
    let word_c = x_at(third);
    // Where a word holds none, a value of its neighbour: there and back, so that one is enough. Of three steps in a row one
    // does: with each step the place of a run within its words moves by the same amount, and so comes back after four.
    let last = sampled(third, word_c, Stat(0.0));
    let a = sampled(first, word_a, sampled(second, word_b, last));
    let b = sampled(second, word_b, a);
    let c = sampled(third, word_c, b);
    let median = max(min(a, b), min(max(a, b), c));
    let reach = min(median - min(min(a, b), c), max(max(a, b), c) - median);
    return Guess(median, median - reach, median + reach);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups, lane);
    var at = cursor_first(tile);
    var shift: array<Stat, STRIP>;
    var low: array<Stat, STRIP>;
    var high: array<Stat, STRIP>;
    var mine: array<Moments, STRIP>;
    for (var j = 0u; j < STRIP; j += 1u) {
        mine[j] = identity();
        shift[j] = Stat(0.0);
        if (at.index < tile.end) {
            let guess = first_guess(at, words_of_chunk(at, tile, CHUNK_WORDS), j);
            shift[j] = guess.shift;
            low[j] = guess.low;
            high[j] = guess.high;
        }
    }
    var most = min(FIRST_WORDS, CHUNK_WORDS);
    while (at.index < tile.end) {
        var group: array<Moments, STRIP>;
        for (var j = 0u; j < STRIP; j += 1u) {
            group[j] = identity();
        }
        for (var chunk = 0u; chunk < GROUP_CHUNKS && at.index < tile.end; chunk += 1u) {
            let words = words_of_chunk(at, tile, most);
            most = CHUNK_WORDS;
            var sum: array<Word, STRIP>;
            var squares: array<Word, STRIP>;
            var counted: array<StatU, STRIP>;
            for (var j = 0u; j < STRIP; j += 1u) {
                sum[j] = Word(0.0);
                squares[j] = Word(0.0);
                counted[j] = StatU(0u);
            }
            for (var i = 0u; i < words; i += 1u) {
                for (var j = 0u; j < STRIP; j += 1u) {
                    let here = strip_cursor(at, j);
                    let scaled_shift = spread(here, -shift[j] * SCALE);
                    let e = within(here, fma(x_at(here), Word(SCALE), scaled_shift));
                    sum[j] += e;
                    squares[j] = fma(e, e, squares[j]);
                    if (EDGES) {
                        counted[j] += values_in(inside(here));
                    }
                }
                at = cursor_next(at);
            }
            for (var j = 0u; j < STRIP; j += 1u) {
                let count = counted_values(words, counted[j]);
                let found = moments_of_sums(count, shift[j], gathered(sum[j]), gathered(squares[j]));
                group[j] = merge(group[j], found);
                shift[j] = min(max(group[j].shift, low[j]), high[j]);
                low[j] = Stat(-F32_MAX);
                high[j] = Stat(F32_MAX);
            }
        }
        for (var j = 0u; j < STRIP; j += 1u) {
            mine[j] = merge(mine[j], group[j]);
            shift[j] = mine[j].shift;
        }
    }
    for (var j = 0u; j < STRIP; j += 1u) {
        let column = strip_tile(tile, j);
        let merged = team_merge(column, mine[j]);
        for (var k = 0u; k < STATS; k += 1u) {
            if (owns(column, k)) {
                partials_out[tile.split * params.records + record_of(column, k)] =
                    record_of_component(merged, k);
            }
        }
    }
}
