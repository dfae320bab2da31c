//! Times of things beside each other.

use std::time::Instant;

use burn::tensor::Device;

use crate::Result;

/// Something whose time is taken; all that it starts is over when it or the device's next sync is.
pub type Timed<'t> = Box<dyn FnMut() + 't>;

/// Medians in milliseconds of as many rounds, in each of which every one has its turn, so that what else the machine does falls on all. Two rounds before that compile.
pub fn medians<const N: usize>(device: &Device, rounds: usize, mut runs: [Timed<'_>; N]) -> Result<[f64; N]> {
    let mut all = [(); N].map(|()| Vec::new());
    for round in 0..rounds + 2 {
        for (run, times) in runs.iter_mut().zip(&mut all) {
            device.sync()?;
            let begin = Instant::now();
            run();
            device.sync()?;
            if round >= 2 {
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(all.map(|mut times: Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}
