// The prologue where x̂ is a function of x alone, f(alpha·x + shift): alpha stands in the place of inv_std.
//
// Bindings: alpha, shift: [1], of all channels; gamma, beta: [slices]; all tensor/parameter_*.wgsl.

fn slice_statistics(tile: Tile, zero: u32) -> Statistics {
    var shift_of_all = 0.0;
    if (flag(zero, FLAG_SHIFT)) {
        shift_of_all = shift_of(0u);
    }
    var gammas = Stat(1.0);
    var betas = Stat(0.0);
    for (var k = 0u; k < STATS; k += 1u) {
        let slice = slice_of(tile, k);
        if (flag(zero, FLAG_GAMMA)) {
            gammas = with_component(gammas, k, gamma_of(slice));
        }
        if (flag(zero, FLAG_BETA)) {
            betas = with_component(betas, k, beta_of(slice));
        }
    }
    return statistics_of(Stat(shift_of_all), Stat(0.0), Stat(alpha_of(0u)), gammas, betas, Stat(0.0));
}
