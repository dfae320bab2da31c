// The gradients of norms whose slices are not channels in one dispatch: as resident/backward.wgsl, x and dy are read once. A team takes one
// slice after the other.
//
//   Σ g·dz, Σ g·dz·x̂ of a slice → dx; d_residual on the way
//   of_place: each invocation has the same places of all its slices, and keeps Σ dz, Σ dz·x̂ of each in registers: in the end they are
//             partial results of dgamma and dbeta, [teams × places]
//   of_slice: the sums of a slice are those results, [slices]
//
// Slices of one sample are shared out among row_teams teams, of samples as many as have parameters of their own.
//
// Grid: samples·row_teams teams. Bindings: x, dy, residual, d_sum, dx, d_residual: tensor/; saved, gamma, beta: fold/recorded.wgsl; partials.
// Overrides: WORKGROUP_SIZE, TEAM_SIZE. Features: none, or those of lib/tree_subgroups.wgsl. Text: $HELD, as in resident/forward.wgsl.

const HELD: u32 = $HELDu;

@group(0) @binding(10) var<storage, read_write> partials_out: array<GradientSumsRecord>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn resident_slices(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let zero = workgroups.z - 1u;
    let team = lane / TEAM_SIZE;
    let number = (workgroup.y * workgroups.x + workgroup.x) * TEAMS + team;
    let sample = number / params.row_teams;
    let first_row = number - sample * params.row_teams;
    let rounds = (params.sample_rows + params.row_teams - 1u) / params.row_teams;
    var place_dz: array<Word, HELD>;
    var place_dz_xhat: array<Word, HELD>;
    for (var i = 0u; i < HELD; i += 1u) {
        place_dz[i] = Word(0.0);
        place_dz_xhat[i] = Word(0.0);
    }
    for (var round = 0u; round < rounds; round += 1u) {
        let row = first_row + round * params.row_teams;
        let slice = sample * params.sample_rows + row;
        let live = row < params.sample_rows && slice < params.slices;
        let tile = Tile(select(0u, slice, live), 0u, 0u, select(0u, params.slice_words, live), team, lane - team * TEAM_SIZE, live);
        let s = slice_statistics(tile, zero);
        let first = cursor_first(tile);
        var held_xhat: array<Word, HELD>;
        var held_dz: array<Word, HELD>;
        var sum_dz = Word(0.0);
        var sum_dz_xhat = Word(0.0);
        var at = first;
        for (var i = 0u; i < HELD; i += 1u) {
            if (at.index < tile.end) {
                let t = statistics_at(at, s, s, 0u);
                let x = x_at(at);
                let dz = dz_of(at, x, t);
                let xhat = xhat_of(at, x, t);
                held_dz[i] = dz;
                held_xhat[i] = xhat;
                let summed = summand(at, dz, t);
                sum_dz += summed;
                sum_dz_xhat = fma(summed, xhat, sum_dz_xhat);
                if (OF_PLACE) {
                    place_dz[i] += dz;
                    place_dz_xhat[i] = fma(dz, xhat, place_dz_xhat[i]);
                }
            }
            at = cursor_next(at);
        }
        if (TEAM_SIZE > 1u) {
            // The tree may still be read for the slice before.
            workgroupBarrier();
        }
        var sums = team_merge_all(tile, GradientSums(gathered(sum_dz), gathered(sum_dz_xhat)));
        if (!OF_PLACE) {
            if (writes(tile, 0u)) {
                partials_out[tile.slice] = record_of_component(sums, 0u);
            }
            sums = GradientSums(sums.dz * s.gamma, sums.dz_xhat * s.gamma);
        }
        let mean = means_of_slice(zero, sums, saved[tile.slice]);
        at = first;
        for (var i = 0u; i < HELD; i += 1u) {
            if (at.index < tile.end) {
                emit_d_residual(at, held_dz[i]);
                store_dx(at, dx_of(at, held_dz[i], held_xhat[i], statistics_at(at, s, s, 0u), mean));
            }
            at = cursor_next(at);
        }
    }
    if (OF_PLACE && number < params.row_teams * params.samples) {
        for (var i = 0u; i < HELD; i += 1u) {
            let word = lane - team * TEAM_SIZE + i * TEAM_SIZE;
            if (word < params.slice_words) {
                for (var k = 0u; k < WORD_WIDTH; k += 1u) {
                    partials_out[number * params.slice_words * WORD_WIDTH + word * WORD_WIDTH + k] =
                        GradientSumsRecord(word_at(place_dz[i], k), word_at(place_dz_xhat[i], k));
                }
            }
        }
    }
}
