// Training backward in one dispatch: reduce, fold and map of slices that a team holds in its registers, so that x and dy (and
// the residual) are read once (3 tensors are moved instead of 5).
//
//   Σ dz, Σ dz·x̂ → dgamma, dbeta, dx; d_residual on the way
//
// Each invocation holds x̂ and dz of up to HELD words; the activation is computed once. The rest is as where steps are
// dispatches of their own: fold/sums.wgsl, lib/dx.wgsl, map/d_residual.wgsl.
//
// Grid: walk/, with one tile per slice and strips of one word. Bindings: x, dy, residual, dx: tensor/; saved, dgamma, dbeta:
// fold/. Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED. Features: none, or those of lib/tree_subgroups.wgsl.
// Text: $HELD, as in resident/forward.wgsl; HELD·WORD_WIDTH up to 64, so that what an invocation sums is one chunk.

const HELD: u32 = $HELDu;

@compute @workgroup_size(WORKGROUP_SIZE)
fn resident_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let tile = tile_of(workgroup, workgroups, lane);
    let s = slice_statistics(tile, zero);
    let first = cursor_first(tile);
    // All loops over what is held have the same fixed length, so that compilers unroll them and keep it in registers.
    var held_xhat: array<Word, HELD>;
    var held_dz: array<Word, HELD>;
    var sum_dz = Word(0.0);
    var sum_dz_xhat = Word(0.0);
    var at = first;
    for (var i = 0u; i < HELD; i += 1u) {
        if (at.index < tile.end) {
            let x = x_at(at);
            held_dz[i] = dz_of(at, x, s);
            held_xhat[i] = xhat_of(at, x, s);
            let counted = within(at, held_dz[i]);
            sum_dz += counted;
            sum_dz_xhat = fma(counted, within(at, held_xhat[i]), sum_dz_xhat);
        }
        at = cursor_next(at);
    }
    let mine = GradientSums(gathered(sum_dz), gathered(sum_dz_xhat));
    let sums = team_merge_all(tile, mine);
    write_sums(tile, zero, sums);
    let mean = means_of(sums, s);

    at = first;
    for (var i = 0u; i < HELD; i += 1u) {
        if (at.index < tile.end && stores(at)) {
            emit_d_residual(at, held_dz[i]);
            store_dx(at, dx_of(at, held_dz[i], held_xhat[i], s, mean));
        }
        at = cursor_next(at);
    }
    emit_d_residual_edges(tile, s);
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let part = cursor_of_edge(tile, edge);
            if (part.index < tile.end) {
                let x = x_at(part);
                store_part_dx(part, dx_of(part, dz_of(part, x, s), xhat_of(part, x, s), s, mean));
            }
        }
    }
}
