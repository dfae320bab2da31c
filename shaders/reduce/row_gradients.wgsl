// Gradient sums of every row by a walk along columns, and on the way d_residual:
//
//   partials[strip·rows + row] = (Σ gamma·dz, Σ gamma·dz·x̂) over the strip's words of the row
//
// A row's sums are what a walk along rows has too (reduce/gradients.wgsl), which loads gamma with every word: here it stays in registers. Where
// loads are bound by instructions, as on a CPU, that is faster.
//
// Grid: walk/columns.wgsl; each row is one row of the walk. Bindings: x, dy, residual: tensor/; saved, gamma, beta: fold/recorded.wgsl;
// partials: [strips × rows], a strip of no words writes none. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES. Features: none.

@group(0) @binding(10) var<storage, read_write> partials_out: array<GradientSumsRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce_row_gradients(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    var s: array<Statistics, STRANDS>;
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        s[strand] = slice_statistics(strand_tile(tile, strand), zero);
    }
    // Strips of a workgroup lie between each other.
    let strip = (tile.column - tile.team) / STRIP + tile.team;
    var at = cursor_first(tile);
    while (at.index < tile.end) {
        var sum_dz = Word(0.0);
        var sum_dz_xhat = Word(0.0);
        var here = at;
        var t = s[0];
        for (var j = 0u; j < STRIP; j += 1u) {
            t = statistics_at(here, s[strand_of(j)], t, j);
            let x = x_at(here);
            let dz = dz_of(here, x, t);
            let summed = within(here, dz * gamma_at(here, t));
            sum_dz += summed;
            sum_dz_xhat = fma(summed, within(here, xhat_of(here, x, t)), sum_dz_xhat);
            if (stores(here)) {
                emit_d_residual(here, dz);
            }
            here = strip_next(at, here, j);
        }
        let record = strip * params.sample_rows + params.window_row + at.index;
        partials_out[record] = GradientSumsRecord(word_sum(sum_dz), word_sum(sum_dz_xhat));
        at = step_next(at, here);
    }
    for (var strand = 0u; strand < STRANDS; strand += 1u) {
        emit_d_residual_edges(strand_tile(tile, strand), s[strand]);
    }
}
