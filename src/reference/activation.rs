//! Activations and their gradients. Twin of shaders/activation/.

use crate::base::activation::Activation;

/// `act(z)`.
pub fn activate(activation: Activation, z: f64) -> f64 {
    if z.is_nan() {
        return z;
    }
    match activation {
        Activation::None => z,
        Activation::Relu => z.max(0.0),
        Activation::Relu6 => z.clamp(0.0, 6.0),
        Activation::LeakyRelu { slope } => {
            if z > 0.0 {
                z
            } else {
                z * f64::from(slope)
            }
        }
        Activation::Silu => z * logistic(z),
        Activation::Gelu => z * normal_below(z),
        Activation::GeluTanh => 0.5 * z * (1.0 + gelu_argument(z).tanh()),
        Activation::Sigmoid => logistic(z),
        Activation::Tanh => z.tanh(),
        Activation::HardSwish if z <= -3.0 => 0.0,
        Activation::HardSwish => z * (z + 3.0).min(6.0) / 6.0,
        Activation::Custom(custom) => custom.functions().value(z),
    }
}

/// `upstream·act'(z)`, at infinity with the limit of the derivative; 0 where the derivative is 0 and upstream is not finite, for those whose derivative is 0 or 1.
pub fn gradient(activation: Activation, z: f64, upstream: f64) -> f64 {
    let masked = |off: bool| if off { 0.0 } else { upstream };
    match activation {
        Activation::None => upstream,
        Activation::Relu => masked(z <= 0.0),
        Activation::Relu6 => masked(z <= 0.0 || z >= 6.0),
        Activation::LeakyRelu { slope } => {
            if z > 0.0 {
                upstream
            } else {
                upstream * f64::from(slope)
            }
        }
        Activation::Silu => upstream * (logistic(z) + vanishing(z, logistic_slope(z))),
        Activation::Gelu => upstream * (normal_below(z) + vanishing(z, normal_density(z))),
        Activation::GeluTanh => {
            let tanh = gelu_argument(z).tanh();
            let slope = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * z * z);
            upstream * 0.5 * (1.0 + tanh + vanishing(z * slope, 1.0 - tanh * tanh))
        }
        Activation::Sigmoid => upstream * logistic_slope(z),
        Activation::Tanh => upstream * (1.0 - z.tanh().powi(2)),
        Activation::HardSwish if z <= -3.0 => 0.0,
        Activation::HardSwish if z >= 3.0 => upstream,
        Activation::HardSwish => upstream * (z / 3.0 + 0.5),
        Activation::Custom(_) if z.is_nan() => upstream * z,
        Activation::Custom(custom) => upstream * custom.functions().derivative(z),
    }
}

/// `upstream·act''(z)`, at infinity with the limit of the second derivative, and 0 where the first one jumps.
pub fn curvature(activation: Activation, z: f64, upstream: f64) -> f64 {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 | Activation::LeakyRelu { .. } => 0.0,
        _ if z.is_nan() => upstream * z,
        Activation::Silu => {
            let slope = logistic_slope(z);
            upstream * (2.0 * slope + vanishing(z * (1.0 - 2.0 * logistic(z)), slope))
        }
        Activation::Gelu => upstream * (2.0 * normal_density(z) - vanishing(z * z, normal_density(z))),
        Activation::GeluTanh => {
            let tanh = gelu_argument(z).tanh();
            let falling = 1.0 - tanh * tanh;
            let (slope, bent) =
                (GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * z * z), GELU_SCALE * 6.0 * GELU_CUBIC * z);
            upstream * vanishing(slope + z * (0.5 * bent - tanh * slope * slope), falling)
        }
        Activation::Sigmoid => upstream * logistic_slope(z) * (1.0 - 2.0 * logistic(z)),
        Activation::Tanh => upstream * -2.0 * z.tanh() * (1.0 - z.tanh().powi(2)),
        Activation::HardSwish if z.abs() >= 3.0 => 0.0,
        Activation::HardSwish => upstream / 3.0,
        Activation::Custom(custom) => {
            upstream * custom.functions().second_derivative.map_or(f64::NAN, |second| second(z))
        }
    }
}

/// `z·slope`, and its limit where an infinite z meets a slope that has vanished.
fn vanishing(z: f64, slope: f64) -> f64 {
    if slope == 0.0 { 0.0 } else { z * slope }
}

/// Where an activation's derivative jumps.
pub fn kinks(activation: Activation) -> &'static [f64] {
    match activation {
        Activation::Relu | Activation::LeakyRelu { .. } => &[0.0],
        Activation::Relu6 => &[0.0, 6.0],
        Activation::HardSwish => &[-3.0, 3.0],
        Activation::Custom(custom) => custom.functions().kinks,
        _ => &[],
    }
}

const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

fn gelu_argument(z: f64) -> f64 {
    GELU_SCALE * (z + GELU_CUBIC * z * z * z)
}

fn logistic(z: f64) -> f64 {
    let e = (-z.abs()).exp();
    if z < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

fn logistic_slope(z: f64) -> f64 {
    let e = (-z.abs()).exp();
    e / ((1.0 + e) * (1.0 + e))
}

fn normal_density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
}

/// Φ(z), the distribution function of N(0, 1).
fn normal_below(z: f64) -> f64 {
    match z {
        _ if z.abs() < NEAR => 0.5 + normal_excess(z),
        _ if z < 0.0 => normal_tail(-z),
        _ => 1.0 - normal_tail(z),
    }
}

/// erf(u) = 2·Φ(√2·u) − 1.
pub(super) fn erf(u: f64) -> f64 {
    let z = std::f64::consts::SQRT_2 * u;
    match z {
        _ if u.is_nan() => u,
        _ if z.abs() < NEAR => 2.0 * normal_excess(z),
        _ => (1.0 - 2.0 * normal_tail(z.abs())).copysign(u),
    }
}

/// How far from 0 the series serves.
const NEAR: f64 = 3.0;

/// Φ(z) − 1/2 = φ(z)·(z + z³/3 + z⁵/(3·5) + …) (Marsaglia 2004).
fn normal_excess(z: f64) -> f64 {
    let (mut term, mut sum, mut k) = (z, z, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        k += 2.0;
        term *= z * z / k;
        sum += term;
    }
    normal_density(z) * sum
}

/// Φ(−a) by the continued fraction of the tail (Abramowitz & Stegun 26.2.14), for an a far above 0.
fn normal_tail(a: f64) -> f64 {
    if a.is_infinite() {
        return 0.0;
    }
    let fraction = (1..=200).rev().fold(a, |fraction, k| a + f64::from(k) / fraction);
    normal_density(a) / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_hand() {
        let at = |activation, z| activate(activation, z);
        assert_eq!((at(Activation::Relu, -1.0), at(Activation::Relu, 2.0)), (0.0, 2.0));
        assert_eq!((at(Activation::Relu6, 7.0), at(Activation::Relu6, -7.0)), (6.0, 0.0));
        assert_eq!(at(Activation::LeakyRelu { slope: 0.25 }, -2.0), -0.5);
        assert_eq!((at(Activation::HardSwish, 1.0), at(Activation::HardSwish, -4.0)), (4.0 / 6.0, 0.0));
        assert_eq!((at(Activation::Sigmoid, 0.0), at(Activation::Tanh, 0.0)), (0.5, 0.0));
        // Computed with 30 digits (mpmath).
        for (activation, z, expected) in [
            (Activation::Gelu, 1.0, 0.841_344_746_068_542_9),
            (Activation::Gelu, -2.0, -0.045_500_263_896_358_4),
            (Activation::Gelu, -6.0, -5.919_525_870_226_189e-9),
            (Activation::GeluTanh, 1.0, 0.841_191_990_608_276_7),
            (Activation::Silu, -1.0, -0.268_941_421_369_995_1),
        ] {
            let got = at(activation, z);
            assert!((got - expected).abs() <= 1e-13 * expected.abs(), "{activation} {z}: {got:e}");
        }
        assert!(Activation::ALL.iter().all(|&activation| at(activation, f64::NAN).is_nan()));
    }

    #[test]
    fn gradients_are_finite_differences() {
        let h = 1e-6;
        for activation in Activation::ALL {
            for step in -80..=80 {
                let z = f64::from(step) * 0.1 + 0.037;
                let numeric = (activate(activation, z + h) - activate(activation, z - h)) / (2.0 * h);
                let got = gradient(activation, z, 1.0);
                assert!((got - numeric).abs() <= 1e-8, "{activation} {z}: {got} is not {numeric}");
            }
        }
        // Limits at infinity, where PyTorch has NaN for products of infinity and 0.
        for activation in Activation::ALL {
            let slopes = [f64::NEG_INFINITY, f64::INFINITY].map(|z| gradient(activation, z, 1.0));
            let expected = match activation {
                Activation::None => [1.0, 1.0],
                Activation::LeakyRelu { slope } => [slope.into(), 1.0],
                Activation::Relu6 | Activation::Sigmoid | Activation::Tanh => [0.0, 0.0],
                _ => [0.0, 1.0],
            };
            assert_eq!(slopes, expected, "{activation}");
        }
        for activation in Activation::ALL {
            for step in -80..=80 {
                let z = f64::from(step) * 0.1 + 0.037;
                let numeric =
                    (gradient(activation, z + h, 1.0) - gradient(activation, z - h, 1.0)) / (2.0 * h);
                let got = curvature(activation, z, 1.0);
                assert!((got - numeric).abs() <= 1e-8, "{activation} {z}: {got} is not {numeric}");
            }
            let ends = [f64::NEG_INFINITY, f64::INFINITY].map(|z| curvature(activation, z, 1.0));
            assert_eq!(ends, [0.0, 0.0], "{activation}");
        }
        assert_eq!(gradient(Activation::Relu, 0.0, 1.0), 0.0);
        assert_eq!(gradient(Activation::Relu, -1.0, f64::NAN), 0.0);
    }
}
