//! Activations of one's own: some of them as examples and for the table, and whether the WGSL of one does what its f64 twins say.

use std::sync::OnceLock;

use super::data::{rounded, widen};
use crate::base::activation::Activation;
use crate::base::custom::{ActivationFunctions, CustomActivation};
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::engine::context::Context;
use crate::norm::{BatchNorm, BatchNormOptions};
use crate::pass::GradientTargets;
use crate::reference::bounds;

/// Activations that are made of WGSL: mish, the square of a ReLU, and one with an inverse. [`Activation::named`] and
/// [`Spec`](crate::Spec) lines know `mish`, `squared_relu` and `bent` from the first call on.
///
/// # Panics
/// If one of them is none, which any test would show.
pub fn custom_activations() -> &'static [Activation] {
    static MADE: OnceLock<[Activation; 3]> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = [
            // z·tanh(log(1 + exp z)) (Misra, "Mish", 2019). With e = exp z: tanh is 1 − 2 / ((1 + e)² + 1).
            Activation::custom(
                "mish",
                include_str!("custom/mish.wgsl"),
                ActivationFunctions::new(mish, |z| mish_slopes(z).0).second_derivative(|z| mish_slopes(z).1),
            ),
            // max(z, 0)² (So et al., "Primer: Searching for Efficient Transformers for Language Modeling", 2021).
            Activation::custom(
                "squared_relu",
                include_str!("custom/squared_relu.wgsl"),
                ActivationFunctions::new(|z| z.max(0.0) * z.max(0.0), |z| 2.0 * z.max(0.0)),
            ),
            // z + (√(z² + 1) − 1) / 2: half of the bend of the bent identity.
            Activation::custom(
                "bent",
                include_str!("custom/bent.wgsl"),
                ActivationFunctions::new(
                    |z| z + (z.hypot(1.0) - 1.0) / 2.0,
                    |z| 1.0 + z / z.hypot(1.0) / 2.0,
                )
                .inverse(|y| (4.0 * (y + 0.5) - (4.0 * (y + 0.5).powi(2) + 3.0).sqrt()) / 3.0, 0.5),
            ),
        ];
        made.map(|made| made.unwrap_or_else(|error| panic!("{error}")))
    })
}

fn mish(z: f64) -> f64 {
    z * mish_tanh(z)
}

/// tanh(log(1 + exp z)).
fn mish_tanh(z: f64) -> f64 {
    let e = (-z.abs()).exp();
    // Both sides of ((1 + e^z)² − 1) / ((1 + e^z)² + 1), times e^-2z where z is above 0.
    if z > 0.0 {
        (1.0 + 2.0 * e) / (1.0 + 2.0 * e + 2.0 * e * e)
    } else {
        (e * (e + 2.0)) / (e * (e + 2.0) + 2.0)
    }
}

/// The first and the second derivative of mish.
fn mish_slopes(z: f64) -> (f64, f64) {
    let (t, s) = (mish_tanh(z), 1.0 / (1.0 + (-z).exp()));
    let change = (1.0 - t * t) * s;
    (t + z * change, 2.0 * change + z * change * ((1.0 - s) - 2.0 * t * s))
}

/// Where a custom activation does not do what its twins in f64 say, a line each: on the device of a context, forward and backward over z from −10⁴ to 10⁴ in all
/// element types; and among the twins, the derivatives against differences, and the inverse. Empty where all holds, and of an activation that is built in.
///
/// ```
/// use wgnorm::{Context, eval};
/// let context = Context::headless_blocking()?;
/// for &activation in eval::custom_activations() {
///     let faults = context.block_on(eval::activation_faults(&context, activation))?;
///     assert!(faults.is_empty(), "{activation}: {faults:#?}");
/// }
/// # Ok::<(), wgnorm::Error>(())
/// ```
///
/// # Errors
/// Those of an allocation, of compiling and of a submission.
pub async fn activation_faults(context: &Context, activation: Activation) -> Result<Vec<String>> {
    let Activation::Custom(custom) = activation else { return Ok(Vec::new()) };
    let mut faults = faults_of_twins(custom);
    for dtype in DType::ALL {
        faults.extend(faults_on_device(context, custom, dtype).await?);
    }
    Ok(faults)
}

/// Values of z from −10⁴ to 10⁴, close to 0 and to where the derivative jumps more of them.
fn grid(functions: &ActivationFunctions) -> Vec<f64> {
    let far = (-80..=80).map(|i| f64::from(i) * 0.05).map(|decade| 10_f64.powf(decade));
    let far: Vec<f64> = far.collect();
    let near = functions
        .kinks
        .iter()
        .copied()
        .chain([0.0])
        .flat_map(|kink| far.iter().flat_map(move |&distance| [kink - distance, kink + distance]));
    near.filter(|z| z.abs() <= 1e4).collect()
}

/// Whether the derivative jumps within a distance of z.
fn jumps(functions: &ActivationFunctions, z: f64, distance: f64) -> bool {
    functions.kinks.iter().any(|kink| (z - kink).abs() <= distance)
}

/// Whether an error is greater than that, or none.
fn is_beyond(error: f64, bound: f64) -> bool {
    error.is_nan() || error.abs() > bound
}

fn faults_of_twins(custom: CustomActivation) -> Vec<String> {
    let functions = custom.functions();
    let mut faults = Vec::new();
    let of = [
        ("derivative", functions.value, Some(functions.derivative)),
        ("second derivative", functions.derivative, functions.second_derivative),
    ];
    for (what, of, slope) in of {
        let Some(slope) = slope else { continue };
        for z in grid(functions) {
            let h = 1e-5 * z.abs().max(1.0);
            if jumps(functions, z, 2.0 * h) {
                continue;
            }
            let difference = (of(z + h) - of(z - h)) / (2.0 * h);
            let scale = slope(z).abs().max(1.0) + of(z).abs() / z.abs().max(1.0);
            // A jump of what is differentiated, as the second derivative of a square of a ReLU has, may be next to any z.
            if is_beyond(slope(z) - difference, 1e-4 * scale) {
                faults.push(format!("{what}: {} at {z}, where differences come to {difference}", slope(z)));
            }
        }
    }
    if let Some(inverse) = functions.inverse {
        for z in grid(functions) {
            let back = inverse(functions.value(z));
            if is_beyond(back - z, 1e-9 * (1.0 + z.abs())) {
                faults.push(format!("inverse: {back} of the value at {z}"));
            }
            if functions.derivative(z) < f64::from(functions.least_slope) * (1.0 - 1e-6) {
                let (slope, least) = (functions.derivative(z), functions.least_slope);
                faults.push(format!("least slope: {least}, where the derivative at {z} is {slope}"));
            }
        }
    }
    faults
}

/// Through frozen statistics of mean 0 and variance 1 z is x.
async fn faults_on_device(context: &Context, custom: CustomActivation, dtype: DType) -> Result<Vec<String>> {
    let (functions, activation) = (custom.functions(), Activation::Custom(custom));
    let x: Vec<f32> = grid(functions).into_iter().map(|z| z as f32).collect();
    let x = rounded(&x, dtype);
    let (count, z) = (x.len(), widen(&x));
    let x = context.upload_as(&[count, 1], &x, dtype).await?;
    let dy = context.upload_as(&[count, 1], &vec![1.0; count], dtype).await?;
    let (y, dx) = (context.zeros_like(&x).await?, context.zeros_like(&x).await?);
    let options = BatchNormOptions::pytorch().eps(0.0).activation(activation);
    let layer = BatchNorm::new(context, 1, options).await?.freeze();
    let targets = GradientTargets { dx: Some(&dx), ..GradientTargets::default() };
    let forward = layer.prepare_infer(&x, &y).await?;
    let backward = layer.prepare_backward(&x, &dy, &targets).await?;
    context.submit(&[&forward, &backward]).await?;
    let (y, dx) = (context.download(&y).await?, context.download(&dx).await?);
    let mut faults = Vec::new();
    for (i, &z) in z.iter().enumerate() {
        let z_bound = 8.0 * bounds::U * z.abs() + f64::from(f32::MIN_POSITIVE);
        let value = functions.value(z);
        let slope = functions.derivative(z);
        let expected = [
            ("activate", value, bounds::activated(activation, z, z_bound), y[i], false),
            (
                "derivative",
                slope,
                bounds::dz(activation, 1.0, z, z_bound) + 8.0 * bounds::U * slope.abs(),
                dx[i],
                true,
            ),
        ];
        for (what, expected, bound, got, jumping) in expected {
            if jumping && jumps(functions, z, z_bound.max(1e-6)) {
                continue;
            }
            let bound = bounds::stored(dtype, expected, bound);
            // What a type has no number for is infinite.
            let beyond = expected.abs() + bound >= dtype.max() && f64::from(got).abs() >= dtype.max();
            if is_beyond(f64::from(got) - expected, bound) && !beyond {
                faults
                    .push(format!("{what} in {dtype}: {got} at {z}, expected {expected} within {bound:.1e}"));
            }
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_of_the_examples_agree_and_others_are_caught() {
        for activation in custom_activations() {
            let Activation::Custom(custom) = activation else { panic!("{activation} is built in") };
            assert_eq!(faults_of_twins(*custom), [""; 0], "{activation}");
        }
        let wgsl = "fn activate(z: f32) -> f32 { return z; } fn derivative(z: f32) -> f32 { return 1.0; }";
        let wrong = Activation::custom("wrong", wgsl, ActivationFunctions::new(|z| z * z, |z| z)).unwrap();
        let Activation::Custom(wrong) = wrong else { panic!("it is custom") };
        assert!(faults_of_twins(wrong)[0].starts_with("derivative: "));
    }
}
