// 1 / (1 + exp(−z)).

fn activate(z: Word) -> Word {
    return logistic(z).value;
}

fn gradient(z: Word, upstream: Word) -> Word {
    return upstream * logistic(z).slope;
}
