// Gradient sums of every tile of every slice, and on the way, where the statistics are frozen, dx.
//
//   partials[split·records + record] = (Σ dy, Σ dy·x̂) over the tile
//
// Through frozen statistics dx does not depend on the sums, so one walk gives all gradients: what
// `emit_dx` does with each word is decided by the included file (map/frozen.wgsl or map/no_dx.wgsl).
// Where the statistics come from likewise (fold/saved.wgsl or fold/running.wgsl).
//
// Grid: walk/. Bindings: x, dy: any rank, walked as words; partials: [splits × records].
// Overrides: WORKGROUP_SIZE 1..=1024, TEAM_SIZE a divisor of it, EDGES, CHUNK_WORDS from 1.
// Features: none. Member 0 of each team holds and writes the sums.

override CHUNK_WORDS: u32 = 16u;

@group(0) @binding(1) var<storage, $INPUT> x: array<Word>;
@group(0) @binding(2) var<storage, $INPUT> dy: array<Word>;
@group(0) @binding(10) var<storage, read_write> partials_out: array<GradientSumsRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_gradients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRIP>;
    var mine: array<GradientSums, STRIP>;
    for (var j = 0u; j < STRIP; j += 1u) {
        s[j] = slice_statistics(strip_tile(tile, j), zero);
        mine[j] = identity();
    }
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        // Sums of short chunks, then the sum of those: the error of a long sum grows with the
        // length of a chunk plus the number of chunks, not with their product.
        var sum_dy: array<Word, STRIP>;
        var sum_dy_xhat: array<Word, STRIP>;
        for (var j = 0u; j < STRIP; j += 1u) {
            sum_dy[j] = Word(0.0);
            sum_dy_xhat[j] = Word(0.0);
        }
        let words = words_of_chunk(at, tile, CHUNK_WORDS);
        for (var i = 0u; i < words; i += 1u) {
            for (var j = 0u; j < STRIP; j += 1u) {
                let here = strip_cursor(at, j);
                let upstream = dy[params.dy_offset + here.word];
                let counted = within(here, upstream);
                let xhat = within(here, normalized(here, x[params.x_offset + here.word], s[j]));
                sum_dy[j] += counted;
                sum_dy_xhat[j] = fma(counted, xhat, sum_dy_xhat[j]);
                emit_dx(here, upstream, s[j]);
            }
            at = cursor_next(at);
        }
        for (var j = 0u; j < STRIP; j += 1u) {
            mine[j] = merge(mine[j], GradientSums(gathered(sum_dy[j]), gathered(sum_dy_xhat[j])));
        }
    }
    for (var j = 0u; j < STRIP; j += 1u) {
        let column = strip_tile(tile, j);
        emit_dx_edges(column, s[j]);
        let merged = team_merge(column, mine[j]);
        for (var k = 0u; k < STATS; k += 1u) {
            if (owns(column, k)) {
                partials_out[tile.split * params.records + record_of(column, k)] =
                    GradientSumsRecord(component(merged.dy, k), component(merged.dy_xhat, k));
            }
        }
    }
}
