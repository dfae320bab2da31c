// Training forward in one dispatch: reduce, fold and map of slices that a team holds in its registers, so that x is read
// once (2 tensors are moved instead of 3).
//
//   moments of x → y = act(x̂·gamma + beta + residual)
//
// Each invocation holds up to HELD words. Its moments are those of one chunk about its own mean, which it takes first: all
// of its values are at hand, so there is nothing to guess. The rest is as where steps are dispatches of their own: the
// merge of moments (lib/moments.wgsl), what is written once per slice (fold/batch.wgsl), and y.
//
// Grid: walk/, with one tile per slice and strips of one word. Bindings: x, residual, y: tensor/; those of fold/batch.wgsl.
// Overrides: WORKGROUP_SIZE, TEAM_SIZE, EDGES, STRIDED. Features: none, or those of lib/tree_subgroups.wgsl.
// Text: $HELD, because WGSL has no array of overridden size but in workgroup memory; HELD·WORD_WIDTH up to 64 (SCALE in
// lib/accumulate.wgsl).

const HELD: u32 = $HELDu;

@compute @workgroup_size(WORKGROUP_SIZE)
fn resident_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let tile = tile_of(workgroup, workgroups, lane);
    let first = cursor_first(tile);
    var held: array<Word, HELD>;
    var words = 0u;
    var counted = StatU(0u);
    // Any value of the slice.
    var guess = Stat(0.0);
    // All loops over what is held have the same fixed length, so that compilers unroll them and keep it in registers.
    var at = first;
    for (var i = 0u; i < HELD; i += 1u) {
        if (at.index < tile.end) {
            held[i] = taken_at(at);
            words += 1u;
            if (EDGES) {
                counted += values_in(inside(at));
            }
            guess = sampled(at, held[i], guess);
        }
        at = cursor_next(at);
    }

    var sum = Word(0.0);
    at = first;
    for (var i = 0u; i < HELD; i += 1u) {
        if (at.index < tile.end) {
            sum += within(at, fma(held[i], Word(SCALE), spread(at, -guess * SCALE)));
        }
        at = cursor_next(at);
    }
    let count = counted_values(words, counted);
    let shift = fma(gathered(sum) / Stat(max(count, StatU(1u))), Stat(UNSCALE), guess);

    sum = Word(0.0);
    var squares = Word(0.0);
    at = first;
    for (var i = 0u; i < HELD; i += 1u) {
        if (at.index < tile.end) {
            let e = within(at, fma(held[i], Word(SCALE), spread(at, -shift * SCALE)));
            sum += e;
            squares = fma(e, e, squares);
        }
        at = cursor_next(at);
    }
    let mine = moments_of_sums(count, shift, gathered(sum), gathered(squares));
    let s = batch_statistics(tile, workgroups.z - 1u, team_merge_all(tile, mine));

    at = first;
    for (var i = 0u; i < HELD; i += 1u) {
        if (at.index < tile.end && stores(at)) {
            store_y(at, activate(z_of(at, held[i], statistics_at(at, s, s, 0u))));
        }
        at = cursor_next(at);
    }
    emit_sum_edges(tile);
    if (EDGES) {
        for (var edge = 0u; edge < 2u; edge += 1u) {
            let part = cursor_of_edge(tile, edge);
            if (part.index < tile.end) {
                store_part_y(part, activate(z_of(part, value_at(part), statistics_at(part, s, s, 0u))));
            }
        }
    }
}
