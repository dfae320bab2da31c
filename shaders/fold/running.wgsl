// Statistics of a slice from running statistics: the prologue of inference and of the backward
// pass through frozen statistics. Reads three to four values and writes nothing.
//
// Bindings: gamma, beta: [slices]; running: running_mean [slices], running_var [slices], batches.

@group(0) @binding(5) var<storage, $INPUT> gamma: array<f32>;
@group(0) @binding(6) var<storage, $INPUT> beta: array<f32>;
@group(0) @binding(7) var<storage, read> running: array<f32>;

fn slice_statistics(tile: Tile, lane: u32) -> Statistics {
    let variance = running[params.slices + tile.slice];
    var s = Statistics(running[tile.slice], 0.0, inv_std_of(variance), variance, 1.0, 0.0, 0u, 0u);
    if (flag(FLAG_GAMMA)) {
        s.gamma = gamma[params.gamma_offset + tile.slice];
    }
    if (flag(FLAG_BETA)) {
        s.beta = beta[params.beta_offset + tile.slice];
    }
    return s;
}
