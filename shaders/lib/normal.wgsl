// Φ, the distribution function of N(0, 1), and its density φ.
//
// Φ(−a) = exp(−a²/2)·t·P(t) with t = 1/(1 + 0.32·a), for a ≥ 0. P is a minimax fit to a relative error of 3.3e-8 (that of
// f32 is 6e-8), so the left tail keeps its digits.

const INV_SQRT_TAU: f32 = 0.3989422804; // 1 / sqrt(2π)

struct Normal {
    // Φ(z), and the density φ(z).
    below: Word,
    density: Word,
}

fn standard_normal(z: Word) -> Normal {
    let a = abs(z);
    let bell = exp(-0.5 * (a * a));
    let t = 1.0 / fma(a, Word(0.32), Word(1.0));
    var p = Word(-0.0210782478);
    p = fma(p, t, Word(0.0954076098));
    p = fma(p, t, Word(-0.146708107));
    p = fma(p, t, Word(0.0653286644));
    p = fma(p, t, Word(-0.00937793204));
    p = fma(p, t, Word(0.0586540806));
    p = fma(p, t, Word(0.087829081));
    p = fma(p, t, Word(0.11462236));
    p = fma(p, t, Word(0.127660947));
    p = fma(p, t, Word(0.127661529));
    let tail = bell * (t * p);
    return Normal(select(1.0 - tail, tail, z < Word(0.0)), bell * INV_SQRT_TAU);
}
