// x̂ = f(alpha·x + shift) and z = x̂·gamma + beta from x; f and its derivative are in curve/tanh.wgsl or curve/erf.wgsl.

fn argument_of(x: Word, s: Statistics) -> Word {
    return fma(Word(s.alpha), x, Word(s.shift));
}

fn xhat_of(at: Cursor, x: Word, s: Statistics) -> Word {
    return curve(argument_of(x, s));
}

fn z_of(at: Cursor, x: Word, s: Statistics) -> Word {
    return with_residual(at, fma(xhat_of(at, x, s), spread(at, s.gamma), spread(at, s.beta)));
}
