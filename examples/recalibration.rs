//! The exact statistics of 10^8 values per channel in 1000 micro-batches, beside an average of averages and f64.
//!
//! ```console
//! $ cargo run --release --example recalibration             # 1000 batches of 100000 values per channel
//! $ cargo run --release --example recalibration -- 50 2000  # fewer
//! ```

use wgnorm::recalibration::Recalibration;
use wgnorm::statistics::PooledMoments;
use wgnorm::{BatchNorm, BatchNormOptions, Context, Error};

const CHANNELS: usize = 2;

fn main() -> Result<(), Error> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let (batches, values) = (numbers.next().unwrap_or(1000), numbers.next().unwrap_or(100_000));
    let context = Context::headless_blocking()?;
    context.block_on(run(&context, batches, values))
}

/// Batches drift: the mean of each is elsewhere, and the last is a tenth as long. Channel 1 has a mean of 10^4.
fn batch(k: usize, values: usize, random: &mut impl FnMut() -> f32) -> Vec<f32> {
    let drift = (k % 17) as f32 / 17.0;
    (0..values)
        .flat_map(|_| {
            let (a, b) = (random(), random());
            [a * (1.0 + drift) + drift, b * 0.1 + 1e4 + 0.05 * drift]
        })
        .collect()
}

async fn run(context: &Context, batches: usize, values: usize) -> Result<(), Error> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    // Uniform in [-1, 1) (splitmix64).
    let mut random = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
    };
    let mut layer = BatchNorm::new(context, CHANNELS, BatchNormOptions::keras()).await?;
    let mut recalibration = Recalibration::new(CHANNELS)?.of_batches(batches as u64);
    // In f64: exact sums of each batch about its own mean, merged; and what an average of the batches' variances gives.
    let mut exact = [PooledMoments::default(); CHANNELS];
    let mut average = [0.0_f64; CHANNELS];
    for k in 0..batches {
        let n = if k + 1 == batches { values.div_ceil(10) } else { values };
        let x = batch(k, n, &mut random);
        for (c, exact) in exact.iter_mut().enumerate() {
            let column = || x[c..].iter().step_by(CHANNELS).map(|&value| f64::from(value));
            let mean = column().sum::<f64>() / n as f64;
            let var = column().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n as f64;
            *exact = exact.merge(PooledMoments { count: n as u64, mean, var });
            average[c] += var / batches as f64;
        }
        let progress = recalibration.add(context, &context.upload(&[n, CHANNELS], &x).await?).await?;
        if (k + 1) % batches.div_ceil(10) == 0 {
            println!("{progress}");
        }
    }
    for (c, (got, exact)) in recalibration.pooled().iter().zip(&exact).enumerate() {
        let mean = (got.mean - exact.mean).abs() / exact.var.sqrt();
        let var = (got.var / exact.var - 1.0).abs();
        println!(
            "channel {c}: {} values; mean off by {mean:.1e} standard deviations, variance by {var:.1e}, an average of the batches' by {:.1e}",
            got.count,
            (average[c] / exact.var - 1.0).abs(),
        );
        assert!(got.count == exact.count && mean <= 1e-6 && var <= 2e-6, "channel {c} is off");
    }
    println!("{}", recalibration.finish(&mut layer).await?);
    Ok(())
}
