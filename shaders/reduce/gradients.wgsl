// Gradient sums of every tile of every slice, and on the way d_residual and, where the statistics are frozen, dx.
//
//   partials[split·records + record] = (Σ dz, Σ dz·x̂) over the tile,        dz = dy·act'(z)
//
// Through frozen statistics dx does not depend on the sums, so one walk gives all gradients: what
// `emit_dx` does with each word is decided by the included file (map/frozen.wgsl or map/no_dx.wgsl), and so is what
// `emit_d_residual` does (map/d_residual.wgsl or map/no_d_residual.wgsl), dz (lib/dz_of_activation.wgsl or
// lib/dz_of_dy.wgsl), x̂ (lib/from_x.wgsl or lib/from_y.wgsl), and where the statistics come from (fold/saved.wgsl or
// fold/running.wgsl).
//
// Grid: walk/. Bindings: x, dy, residual: tensor/; partials: [splits × records].
// Overrides: WORKGROUP_SIZE 1..=1024, TEAM_SIZE a divisor of it, EDGES, CHUNK_WORDS from 1.
// Features: none. Member 0 of each team holds and writes the sums.

override CHUNK_WORDS: u32 = 16u;

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
        var sum_dz: array<Word, STRIP>;
        var sum_dz_xhat: array<Word, STRIP>;
        for (var j = 0u; j < STRIP; j += 1u) {
            sum_dz[j] = Word(0.0);
            sum_dz_xhat[j] = Word(0.0);
        }
        let words = words_of_chunk(at, tile, CHUNK_WORDS);
        for (var i = 0u; i < words; i += 1u) {
            for (var j = 0u; j < STRIP; j += 1u) {
                let here = strip_cursor(at, j);
                let x = x_at(here);
                let dz = dz_of(here, x, s[j]);
                let counted = within(here, dz);
                let xhat = within(here, xhat_of(here, x, s[j]));
                sum_dz[j] += counted;
                sum_dz_xhat[j] = fma(counted, xhat, sum_dz_xhat[j]);
                if (stores(here)) {
                    emit_d_residual(here, dz);
                    emit_dx(here, dz, s[j]);
                }
            }
            at = cursor_next(at);
        }
        for (var j = 0u; j < STRIP; j += 1u) {
            mine[j] = merge(mine[j], GradientSums(gathered(sum_dz[j]), gathered(sum_dz_xhat[j])));
        }
    }
    for (var j = 0u; j < STRIP; j += 1u) {
        let column = strip_tile(tile, j);
        emit_d_residual_edges(column, s[j]);
        emit_dx_edges(column, s[j]);
        let merged = team_merge(column, mine[j]);
        for (var k = 0u; k < STATS; k += 1u) {
            if (owns(column, k)) {
                partials_out[tile.split * params.records + record_of(column, k)] =
                    GradientSumsRecord(component(merged.dz, k), component(merged.dz_xhat, k));
            }
        }
    }
}
