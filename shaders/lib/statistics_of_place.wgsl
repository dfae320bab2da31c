// All values of a slice have its statistics; the parameters are those of their places.

fn statistics_at(at: Cursor, s: Statistics, before: Statistics, j: u32) -> Statistics {
    var t = s;
    let i = parameters_at(at, s);
    t.place_gamma = gamma_parameters(i);
    t.place_beta = beta_parameters(i);
    return t;
}
