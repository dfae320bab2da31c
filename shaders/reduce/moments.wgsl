// Moments of every tile of every slice of x.
//
//   partials[split·records + record] = Moments of the tile's values
//
// What is reduced is x, or a sum that is written on the way (lib/emit_sum.wgsl).
//
// Grid: walk/. Bindings: x: tensor/input.wgsl; partials: [splits × records].
// Overrides: WORKGROUP_SIZE 1..=1024, TEAM_SIZE a divisor of it, EDGES, CHUNK_WORDS from 1 to 64
// values (see SCALE in lib/accumulate.wgsl). Features: none, or those of lib/tree_subgroups.wgsl. Member 0 of each team holds and writes
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
fn first_guess(start: Cursor, words: u32, strand: u32) -> Guess {
    var next = start;
    let first = strand_cursor(next, strand);
    if (words >= 2u) {
        next = cursor_next(next);
    }
    let second = strand_cursor(next, strand);
    if (words >= 3u) {
        next = cursor_next(next);
    }
    let third = strand_cursor(next, strand);
    let word_a = value_at(first);
    let word_b = value_at(second);
    let word_c = value_at(third);
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

// With a mask, words may hold any number of values: the first that counts is the guess. Its distance from the mean of its chunk is at
// most the square root of their number, in standard deviations.
fn first_counted(start: Cursor, tile: Tile, strand: u32) -> Stat {
    var found = Stat(0.0);
    var seen = StatU(0u);
    var at = start;
    while ((at.index < tile.end) & any(seen == StatU(0u))) {
        let here = strand_cursor(at, strand);
        found = select(found, sampled(here, value_at(here), found), seen == StatU(0u));
        seen += values_in(counts(here));
        at = cursor_next(at);
    }
    return found;
}

// The mean so far, or what was the shift before where a mask has left nothing.
fn shift_of(m: Moments, otherwise: Stat) -> Stat {
    if (!MASKED) {
        return m.shift;
    }
    return select(otherwise, m.shift, count_of(m) != Stat(0.0));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups, lane);
    var at = cursor_first(tile);
    var shift: array<Stat, STRANDS>;
    var low: array<Stat, STRANDS>;
    var high: array<Stat, STRANDS>;
    var mine: array<Moments, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        mine[strand] = identity();
        shift[strand] = Stat(0.0);
        if (MASKED) {
            shift[strand] = first_counted(at, tile, strand);
        } else if (at.index < tile.end) {
            let guess = first_guess(at, words_of(steps_of_chunk(at, tile, CHUNK_WORDS)), strand);
            shift[strand] = guess.shift;
            low[strand] = guess.low;
            high[strand] = guess.high;
        }
    }
    var most = min(FIRST_WORDS, CHUNK_WORDS);
    while (at.index < tile.end) {
        var group: array<Moments, STRANDS>;
        for (var strand = 0u; strand < STRANDS; strand += 1u) {
            group[strand] = identity();
        }
        for (var chunk = 0u; chunk < GROUP_CHUNKS && at.index < tile.end; chunk += 1u) {
            let steps = steps_of_chunk(at, tile, most);
            most = CHUNK_WORDS;
            var sum: array<Word, STRANDS>;
            var squares: array<Word, STRANDS>;
            var counted: array<StatU, STRANDS>;
            for (var strand = 0u; strand < STRANDS; strand += 1u) {
                sum[strand] = Word(0.0);
                squares[strand] = Word(0.0);
                counted[strand] = StatU(0u);
            }
            for (var i = 0u; i < steps; i += 1u) {
                var here = at;
                for (var j = 0u; j < STRIP; j += 1u) {
                    let strand = strand_of(j);
                    let scaled_shift = spread(here, -shift[strand] * SCALE);
                    let e = within(here, fma(taken_at(here), Word(SCALE), scaled_shift));
                    sum[strand] += e;
                    squares[strand] = fma(e, e, squares[strand]);
                    if (EDGES || MASKED) {
                        counted[strand] += values_in(counts(here));
                    }
                    here = strip_next(at, here, j);
                }
                at = step_next(at, here);
            }
            for (var strand = 0u; strand < STRANDS; strand += 1u) {
                let count = counted_values(words_of(steps), counted[strand]);
                let found = moments_of_sums(count, shift[strand], gathered(sum[strand]), gathered(squares[strand]));
                group[strand] = merge(group[strand], found);
                shift[strand] = shift_of(group[strand], shift[strand]);
                if (!MASKED) {
                    shift[strand] = min(max(shift[strand], low[strand]), high[strand]);
                    low[strand] = Stat(-F32_MAX);
                    high[strand] = Stat(F32_MAX);
                }
            }
        }
        for (var strand = 0u; strand < STRANDS; strand += 1u) {
            mine[strand] = merge(mine[strand], group[strand]);
            shift[strand] = shift_of(mine[strand], shift[strand]);
        }
    }
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        let column = strand_tile(tile, strand);
        emit_sum_edges(column);
        let merged = team_merge(column, mine[strand]);
        for (var k = 0u; k < STATS; k += 1u) {
            if (owns(column, k)) {
                partials_out[tile.split * params.records + record_of(column, k)] =
                    record_of_component(merged, k);
            }
        }
    }
}
