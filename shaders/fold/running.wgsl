// Statistics of a slice from running statistics: the prologue of inference and of the backward
// pass through frozen statistics. Reads three to four values and writes nothing.
//
// Bindings: gamma, beta: tensor/parameter_*.wgsl; running: running_mean [slices], running_var [slices], batches.

@group(0) @binding(7) var<storage, read> running: array<f32>;

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var mean = Stat(0.0);
    var variance = Stat(0.0);
    var gammas = Stat(1.0);
    var betas = Stat(0.0);
    for (var k = 0u; k < STATS; k += 1u) {
        let slice = slice_of(tile, k);
        mean = with_component(mean, k, running[slice]);
        variance = with_component(variance, k, running[params.slices + slice]);
        if (flag(zero, FLAG_GAMMA)) {
            gammas = with_component(gammas, k, gamma_of(slice));
        }
        if (flag(zero, FLAG_BETA)) {
            betas = with_component(betas, k, beta_of(slice));
        }
    }
    return statistics_of(mean, Stat(0.0), inv_std_of(variance), gammas, betas, Stat(0.0));
}
