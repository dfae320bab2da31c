//! Softmax as a kernel of one's own, over rows and over channels, in f32 and binary16.
//!
//! `cargo run --example softmax`

use wgnorm::wgsl::Program;
use wgnorm::{Context, DType, Error};

/// Softmax over the axis in the middle of `[outer, len, inner]`, in f64.
fn expected(x: &[f32], [outer, len, inner]: [usize; 3]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for i in 0..outer * inner {
        let place = |k| (i / inner * len + k) * inner + i % inner;
        let most = (0..len).map(|k| f64::from(x[place(k)])).fold(f64::MIN, f64::max);
        let exp = |k| (f64::from(x[place(k)]) - most).exp();
        let sum: f64 = (0..len).map(exp).sum();
        (0..len).for_each(|k| y[place(k)] = exp(k) / sum);
    }
    y
}

fn main() -> Result<(), Error> {
    let context = Context::headless_blocking()?;
    let softmax = Program::new("softmax", include_str!("softmax.wesl"))?;
    context.block_on(async {
        for (dtype, bound) in [(DType::F32, 3e-6), (DType::F16, 5e-4)] {
            for (axis, cut) in [(2, [12, 1000, 1]), (1, [4, 3, 1000])] {
                let x: Vec<f32> = (0..12_000).map(|i| (i * 37 % 101) as f32 / 4.0 - 12.0).collect();
                let tensor = context.upload_as(&[4, 3, 1000], &x, dtype).await?;
                let y = context.zeros_like(&tensor).await?;
                let pass = softmax.over(&[axis]).bind("x", &tensor).bind("y", &y).prepare(&context).await?;
                context.submit(&[&pass]).await?;
                let got = context.download(&y).await?;
                let wanted = expected(&x, cut);
                let worst = got.iter().zip(&wanted).map(|(y, e)| (f64::from(*y) - e).abs() / e.max(1e-3));
                let worst = worst.fold(0.0, f64::max);
                println!("{dtype:?}, axis {axis}: relative error {worst:.1e}");
                assert!(worst < bound, "{worst}");
            }
        }
        Ok(())
    })
}
