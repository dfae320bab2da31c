// Training backward in one dispatch: reduce, fold and map of slices that a team holds in its registers, so that x and dy (and
// the residual) are read once (3 tensors are moved instead of 5).
//
//   Σ dz, Σ dz·x̂ → dgamma, dbeta, dx; d_residual on the way
//
// Each invocation holds x and dz of up to HELD words; the activation is computed once. The rest is as where steps are
// dispatches of their own: lib/dx.wgsl, map/dx.wgsl, map/d_residual.wgsl.
//
// A team takes a channel (resident/of_channels.wgsl), or one slice after the other (resident/of_slices.wgsl): there is what becomes of the sums.
//
// Grid: walk/, with one tile per slice and strips of one word; or resident/of_slices.wgsl. Bindings: x, dy, residual, dx: tensor/; saved;
// those of the sums. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED. Features: none, or those of lib/tree_subgroups.wgsl.
// Text: $HELD, as in resident/forward.wgsl; HELD·WORD_WIDTH up to 64, so that what an invocation sums is one chunk.

const HELD: u32 = $HELDu;

@compute @workgroup_size(WORKGROUP_SIZE)
fn resident_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    for (var turn = 0u; turn < turns(); turn += 1u) {
        let tile = tile_of_turn(workgroup, workgroups, lane, turn);
        var s = slice_statistics(tile, zero);
        let first = cursor_first(tile);
        // All loops over what is held have the same fixed length, so that compilers unroll them and keep it in registers.
        var held_x: array<Word, HELD>;
        var held_dz: array<Word, HELD>;
        var sum_dz = Word(0.0);
        var sum_dz_xhat = Word(0.0);
        var at = first;
        for (var i = 0u; i < HELD; i += 1u) {
            if (at.index < tile.end) {
                let t = statistics_at(at, s, s, 0u);
                held_x[i] = x_at(at);
                held_dz[i] = dz_of(at, held_x[i], t);
                let xhat = within(at, xhat_of(at, held_x[i], t));
                let counted = within(at, summand(at, held_dz[i], t));
                sum_dz += counted;
                sum_dz_xhat = fma(counted, xhat, sum_dz_xhat);
                sum_of_place(i, held_dz[i], xhat);
            }
            at = cursor_next(at);
        }
        let sums = team_merge_all(tile, GradientSums(gathered(sum_dz), gathered(sum_dz_xhat)));
        s = with_sums(tile, zero, s, sums);

        at = first;
        for (var i = 0u; i < HELD; i += 1u) {
            if (at.index < tile.end && stores(at)) {
                emit_d_residual(at, held_dz[i]);
                emit_dx(at, held_x[i], held_dz[i], statistics_at(at, s, s, 0u));
            }
            at = cursor_next(at);
        }
        emit_d_residual_edges(tile, s);
        emit_dx_edges(tile, s);
        if (TEAM_SIZE > 1u && turns() > 1u) {
            // The tree may still be read for this slice.
            workgroupBarrier();
        }
    }
    write_places(workgroup, workgroups, lane);
}
