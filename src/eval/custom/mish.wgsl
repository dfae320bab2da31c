// tanh(log(1 + exp z)) = ((1 + exp z)² − 1) / ((1 + exp z)² + 1); where z is above 0, of exp −z.
fn tanh_of_softplus(z: f32) -> f32 {
    let e = exp(-abs(z));
    let above = (1.0 + 2.0 * e) / (1.0 + 2.0 * e + 2.0 * e * e);
    let below = e * (e + 2.0) / (e * (e + 2.0) + 2.0);
    return select(below, above, z > 0.0);
}

// 1 − tanh², times the logistic function.
fn change(z: f32) -> f32 {
    let e = exp(-abs(z));
    let d = select(e * (e + 2.0) + 2.0, 1.0 + 2.0 * e + 2.0 * e * e, z > 0.0);
    // (1 − t)(1 + t), without a difference of what is nearly the same.
    let one_minus = select(2.0, 2.0 * e * e, z > 0.0) / d;
    let logistic = select(e, 1.0, z > 0.0) / (1.0 + e);
    return one_minus * (1.0 + tanh_of_softplus(z)) * logistic;
}

fn activate(z: f32) -> f32 {
    return z * tanh_of_softplus(z);
}

fn derivative(z: f32) -> f32 {
    let c = change(z);
    // Far from 0 it vanishes, also against an infinite z.
    return tanh_of_softplus(z) + select(z * c, 0.0, c == 0.0);
}

fn second_derivative(z: f32) -> f32 {
    let e = exp(-abs(z));
    let logistic = select(e, 1.0, z > 0.0) / (1.0 + e);
    let c = change(z);
    return 2.0 * c + select(z * c, 0.0, c == 0.0) * ((1.0 - logistic) - 2.0 * tanh_of_softplus(z) * logistic);
}
