// The curve of Dynamic Tanh: f = tanh. ±∞ gives ±1, with a slope of 0.

fn curve(u: Word) -> Word {
    return tanh_of(u);
}

fn curve_slope(u: Word) -> Word {
    return tanh_slope(u);
}
