// 0.5·z·(1 + tanh(sqrt(2/π)·(z + 0.044715·z³))), PyTorch's gelu with approximate="tanh"; as z·σ(2·…), σ the logistic
// function.

const GELU_LINEAR: f32 = 1.5957691216; // 2·sqrt(2/π)
const GELU_CUBIC: f32 = 0.0713548162726; // 2·sqrt(2/π)·0.044715

fn gelu_argument(z: Word) -> Word {
    return z * fma(z * z, Word(GELU_CUBIC), Word(GELU_LINEAR));
}

fn activate(z: Word) -> Word {
    return z * logistic(gelu_argument(z)).value;
}

fn gradient(z: Word, upstream: Word) -> Word {
    let s = logistic(gelu_argument(z));
    let inner = fma(z * z, Word(3.0 * GELU_CUBIC), Word(GELU_LINEAR));
    return upstream * (s.value + select(z * s.slope * inner, Word(0.0), s.slope == Word(0.0)));
}
