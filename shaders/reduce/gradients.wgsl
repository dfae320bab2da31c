// Gradient sums of every tile of every slice, and on the way d_residual and, where the statistics are frozen, dx.
//
//   partials[split·records + record] = (Σ dz, Σ dz·x̂) over the tile,        dz = dy·act'(z)
//
// (lib/gradient_words.wgsl; through a curve, curve/words.wgsl, two sums more).
//
// Through frozen statistics dx does not depend on the sums, so one walk gives all gradients: what
// `emit_dx` does with each word is decided by the included file (map/dx.wgsl or map/no_dx.wgsl), and so is what
// `emit_d_residual` does (map/d_residual.wgsl or map/no_d_residual.wgsl), dz (lib/dz_of_activation.wgsl or
// lib/dz_of_dy.wgsl), x̂ (lib/from_x.wgsl, lib/from_y.wgsl or lib/from_curve.wgsl), and where the statistics come from (a file of fold/ that defines
// `slice_statistics`). Where gamma varies within the slice, the sums are of gamma·dz (`summand`, affine/); where statistics vary within it,
// `statistics_at` has those of a word (lib/statistics_of_row.wgsl).
//
// Grid: walk/. Bindings: x, dy, residual: tensor/; partials: [splits × records].
// Overrides: WORKGROUP_SIZE 1..=1024, TEAM_SIZE a divisor of it, EDGES, CHUNK_WORDS from 1.
// Features: none, or those of lib/tree_subgroups.wgsl. Member 0 of each team holds and writes the sums.

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
    var s: array<Statistics, STRANDS>;
    var mine: array<GradientSums, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        s[strand] = slice_statistics(strand_tile(tile, strand), zero);
        mine[strand] = identity();
    }
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        // Sums of short chunks, then the sum of those: the error of a long sum grows with the
        // length of a chunk plus the number of chunks, not with their product.
        var words: array<WordSums, STRANDS>;
        for (var strand = 0u; strand < STRANDS; strand += 1u) {
            words[strand] = no_words();
        }
        let steps = steps_of_chunk(at, tile, CHUNK_WORDS);
        for (var i = 0u; i < steps; i += 1u) {
            var here = at;
            var t = s[0];
            for (var j = 0u; j < STRIP; j += 1u) {
                let strand = strand_of(j);
                t = statistics_at(here, s[strand], t, j);
                let x = x_at(here);
                let dz = dz_of(here, x, t);
                words[strand] = with_word(words[strand], here, x, dz, t);
                if (stores(here)) {
                    emit_d_residual(here, dz);
                    emit_dx(here, x, dz, t);
                }
                here = strip_next(at, here, j);
            }
            at = step_next(at, here);
        }
        for (var strand = 0u; strand < STRANDS; strand += 1u) {
            mine[strand] = merge(mine[strand], sums_of_words(words[strand], s[strand]));
        }
    }
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        let column = strand_tile(tile, strand);
        emit_d_residual_edges(column, s[strand]);
        emit_dx_edges(column, s[strand]);
        let merged = team_merge(column, mine[strand]);
        for (var k = 0u; k < STATS; k += 1u) {
            if (owns(column, k)) {
                partials_out[tile.split * params.records + record_of(column, k)] =
                    record_of_component(merged, k);
            }
        }
    }
}
