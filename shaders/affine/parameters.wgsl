// gamma and beta of a slice, or of the places of a word, as affine/parameter_of.wgsl finds them.
//
// Bindings: gamma, beta: tensor/parameter_*.wgsl.

fn gamma_parameters(i: WordU) -> Word {
    return Word(params.gamma_base) + gamma_word_of(i * WordU(params.gamma_step));
}

fn beta_parameters(i: WordU) -> Word {
    return beta_word_of(i * WordU(params.beta_step));
}

// The same statistics with the parameters of a slice, or of several.
fn with_parameters(tile: Tile, s: Statistics) -> Statistics {
    var t = s;
    for (var k = 0u; k < STATS; k += 1u) {
        let i = parameter_of(slice_of(tile, k));
        t.first_parameter = with_component_u(t.first_parameter, k, i);
        t.gamma = with_component(t.gamma, k, gamma_parameter(i));
        t.beta = with_component(t.beta, k, beta_of(i * params.beta_step));
    }
    return t;
}
