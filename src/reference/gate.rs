//! Gates: `norm(x)·act(gate)` and `norm(x·act(gate))` beside a norm. Twin of shaders/lib/gate.wesl.

use super::activation::{activate, gradient};
use crate::base::activation::Activation;

/// `values·act(gate)`: y of what is normalized, dz of dy, u of x, dx of du.
pub fn gated(values: &[f64], gate: &[f64], activation: Activation) -> Vec<f64> {
    values.iter().zip(gate).map(|(value, &gate)| value * activate(activation, gate)).collect()
}

/// The gradient of the gate, of what it is a factor of and the gradient of the product: `upstream·values·act'(gate)`, of dy and z, or of du and x.
pub fn d_gate(values: &[f64], upstream: &[f64], gate: &[f64], activation: Activation) -> Vec<f64> {
    let products = values.iter().zip(upstream).map(|(value, upstream)| value * upstream);
    products.zip(gate).map(|(product, &gate)| gradient(activation, gate, product)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_a_finite_difference() {
        let (values, dy, h) = ([2.0, -3.0], [0.5, 4.0], 1e-6);
        for activation in [Activation::Silu, Activation::Sigmoid, Activation::None] {
            let y = |gate: [f64; 2]| gated(&values, &gate, activation);
            let (more, less) = (y([0.3 + h, -1.2 + h]), y([0.3 - h, -1.2 - h]));
            let got = d_gate(&values, &dy, &[0.3, -1.2], activation);
            for i in 0..2 {
                assert!((got[i] - dy[i] * (more[i] - less[i]) / (2.0 * h)).abs() < 1e-8, "{activation} {i}");
            }
        }
    }
}
