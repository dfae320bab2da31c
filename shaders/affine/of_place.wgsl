// gamma and beta vary within a slice: a value for each place of a run (layer norm, RMS norm), which
// lib/statistics_of_place.wgsl loads. The walk is segments, a slice one run.
//
// Bindings: gamma, beta: tensor/parameter_*.wgsl.

const OF_PLACE: bool = true;

// The parameters of the components, those of the next run where it has begun.
fn parameters_at(at: Cursor, s: Statistics) -> WordU {
    let first = spread_u(at, s.first_parameter) + WordU(params.first_place);
    if (!EDGES) {
        return first + WordU(at.at * WORD_WIDTH) + WORD_PLACES;
    }
    let place = places(at);
    let within_run = select(place - WordU(params.inner), place, place < WordU(params.inner));
    return first + min(within_run, WordU(params.inner - 1u));
}

fn gamma_at(at: Cursor, s: Statistics) -> Word {
    return s.place_gamma;
}

fn beta_at(at: Cursor, s: Statistics) -> Word {
    return s.place_beta;
}

fn scale_at(at: Cursor, s: Statistics) -> Word {
    return spread(at, s.inv_std) * gamma_at(at, s);
}

// What enters the gradient sums.
fn summand(at: Cursor, dz: Word, s: Statistics) -> Word {
    return dz * gamma_at(at, s);
}
