// A resident backward pass of norms whose slices are not channels: a team takes one slice after the other, and leaves partial results of dgamma and
// dbeta (lib/dx_weighted.wgsl, fold/means_of_sums.wgsl).
//
//   of_place: each invocation has the same places of all its slices, and keeps their Σ dz, Σ dz·x̂ in registers: in the end partial results,
//             [teams × places]
//   of_slice: the sums of a slice are partial results, [slices]
//
// Slices of one sample are shared out among row_teams teams, of samples as many as have parameters of their own.
//
// Grid: samples·row_teams teams. Bindings: saved, gamma, beta: fold/recorded.wgsl; partials.

@group(0) @binding(10) var<storage, read_write> partials_out: array<GradientSumsRecord>;

// WGSL sets them to zero.
var<private> place_dz: array<Word, HELD>;
var<private> place_dz_xhat: array<Word, HELD>;

fn turns() -> u32 {
    return (params.sample_rows + params.row_teams - 1u) / params.row_teams;
}

fn number_of_team(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) -> u32 {
    return (workgroup.y * workgroups.x + workgroup.x) * TEAMS + lane / TEAM_SIZE;
}

fn tile_of_turn(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32, turn: u32) -> Tile {
    let number = number_of_team(workgroup, workgroups, lane);
    let sample = number / params.row_teams;
    let row = number - sample * params.row_teams + turn * params.row_teams;
    let slice = sample * params.sample_rows + row;
    let live = row < params.sample_rows && slice < params.slices;
    let end = select(0u, params.slice_words, live);
    return Tile(select(0u, slice, live), 0u, 0u, end, lane / TEAM_SIZE, lane % TEAM_SIZE, live);
}

fn sum_of_place(i: u32, dz: Word, xhat: Word) {
    if (OF_PLACE) {
        place_dz[i] += dz;
        place_dz_xhat[i] = fma(dz, xhat, place_dz_xhat[i]);
    }
}

fn write_places(workgroup: vec3<u32>, workgroups: vec3<u32>, lane: u32) {
    let number = number_of_team(workgroup, workgroups, lane);
    if (OF_PLACE && number < params.row_teams * params.samples) {
        for (var i = 0u; i < HELD; i += 1u) {
            let word = lane % TEAM_SIZE + i * TEAM_SIZE;
            for (var k = 0u; k < select(0u, WORD_WIDTH, word < params.slice_words); k += 1u) {
                partials_out[(number * params.slice_words + word) * WORD_WIDTH + k] =
                    GradientSumsRecord(word_at(place_dz[i], k), word_at(place_dz_xhat[i], k));
            }
        }
    }
}

fn with_sums(tile: Tile, zero: u32, s: Statistics, sums: GradientSums) -> Statistics {
    var weighted = sums;
    if (!OF_PLACE) {
        if (writes(tile, 0u)) {
            partials_out[tile.slice] = record_of_component(sums, 0u);
        }
        weighted = GradientSums(sums.dz * s.gamma, sums.dz_xhat * s.gamma);
    }
    return with_means(zero, s, weighted, saved[tile.slice]);
}
