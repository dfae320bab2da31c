// x̂ and z = x̂·gamma + beta from what forward left in the place of x: y. The activation is invertible.
//
//   z = act⁻¹(y)        x̂ = (z − residual − beta) / gamma
//
// Dividing by gamma enlarges the rounding errors of y. Where |gamma| is below `params.least_gamma`, x̂ is NaN, and with it
// dx and dgamma of the channel; forward has said so in the saved statistics. Source: Rota Bulò, Porzi & Kontschieder,
// "In-Place Activated BatchNorm for Memory-Optimized Training of DNNs", 2018.

fn xhat_of(at: Cursor, y: Word, s: Statistics) -> Word {
    let recoverable = abs(s.gamma) >= Stat(params.least_gamma);
    let inv_gamma = select(Stat(params.nan), 1.0 / s.gamma, recoverable);
    return (without_residual(at, inverse(y)) - spread(at, s.beta)) * spread(at, inv_gamma);
}

fn z_of(at: Cursor, y: Word, s: Statistics) -> Word {
    return inverse(y);
}
