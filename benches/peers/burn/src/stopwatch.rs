//! Timing burn's work and a copy beside it, their samples taking turns.

use std::time::Instant;

use burn::tensor::{Device, ProfileOptions, TimingMethod};
use serde::Serialize;
use wgnorm::{Context, Prepared};

use crate::Refusal;

/// Median, minimum and 90th percentile of one execution, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub p90: f64,
}

pub struct Stopwatch<'b> {
    pub device: &'b Device,
    /// The same device.
    pub context: &'b Context,
    /// Whether burn's clock sees the kernels: those of its own.
    pub sees: bool,
    pub samples: u32,
}

/// One sample should last this long, as in `wgnorm bench`.
const SAMPLE_NS: f64 = 4e6;
const MOST_REPEATS: u32 = 64;
/// Runs before anything counts: at first kernels are compiled, alternatives tried and fusion plans made. It is settled
/// when a few in a row were no faster than the best before.
const FEWEST_WARMUPS: u32 = 6;
const MOST_WARMUPS: u32 = 40;
const SETTLED: u32 = 4;

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |quantile: f64| samples[((samples.len() - 1) as f64 * quantile).round() as usize];
        Self { median: at(0.5), min: at(0.0), p90: at(0.9) }
    }
}

/// Nanoseconds of one run by the device's clock, if burn has one, and by the wall's.
type Sample = (Option<f64>, f64);

impl Stopwatch<'_> {
    /// Times of the work by both clocks, and of the copy by the wall's.
    pub fn time(
        &self,
        work: impl Fn() -> Result<(), String> + Sync,
        copy: &Prepared,
    ) -> Result<(Option<Spread>, Spread, Spread), Refusal> {
        let repeats = repeats(self.settle(&work)?);
        self.copy(copy, 1)?;
        let copies = self::repeats(self.copy(copy, 1)?);
        let (mut samples, mut copied): (Vec<Sample>, _) = (Vec::new(), Vec::new());
        for _ in 0..self.samples {
            samples.push(self.sample(&work, repeats)?);
            copied.push(self.copy(copy, copies)?);
        }
        let device: Option<Vec<f64>> = samples.iter().map(|(device, _)| *device).collect();
        let wall = samples.iter().map(|(_, wall)| *wall).collect();
        Ok((device.map(Spread::of), Spread::of(wall), Spread::of(copied)))
    }

    /// Runs the work until it becomes no faster. Returns the best time.
    fn settle(&self, work: &(impl Fn() -> Result<(), String> + Sync)) -> Result<f64, Refusal> {
        let (mut best, mut settled) = (f64::INFINITY, 0);
        for count in 0..MOST_WARMUPS {
            let (_, ns) = self.sample(work, 1)?;
            settled = if ns > 0.95 * best { settled + 1 } else { 0 };
            best = best.min(ns);
            if count + 1 >= FEWEST_WARMUPS && settled >= SETTLED {
                break;
            }
        }
        Ok(best)
    }

    /// Several runs, from an idle device to an idle device.
    fn sample(
        &self,
        work: &(impl Fn() -> Result<(), String> + Sync),
        repeats: u32,
    ) -> Result<Sample, Refusal> {
        let told = |error| format!("burn: {error}");
        self.device.sync().map_err(told)?;
        let started = Instant::now();
        if !self.sees {
            (0..repeats).try_for_each(|_| work())?;
            self.device.sync().map_err(told)?;
            return Ok((None, started.elapsed().as_nanos() as f64 / f64::from(repeats)));
        }
        let options = ProfileOptions::default().flush();
        let (done, window) =
            self.device.profile_with(options, || (0..repeats).try_for_each(|_| work())).map_err(told)?;
        done?;
        self.device.sync().map_err(told)?;
        let wall = started.elapsed().as_nanos() as f64 / f64::from(repeats);
        if window.timing_method() != TimingMethod::Device {
            return Ok((None, wall));
        }
        // From the first of its passes to the end of the last.
        let ticks = self.context.block_on(window.resolve()).ok_or("burn's clock saw no work")?;
        Ok((Some(ticks.duration().as_nanos() as f64 / f64::from(repeats)), wall))
    }

    fn copy(&self, copy: &Prepared, repeats: u32) -> Result<f64, Refusal> {
        let device = self.context.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..repeats).for_each(|_| copy.record_in(&mut pass));
        }
        let commands = encoder.finish();
        let started = Instant::now();
        self.context.queue().submit([commands]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(started.elapsed().as_nanos() as f64 / f64::from(repeats))
    }
}

fn repeats(ns: f64) -> u32 {
    ((SAMPLE_NS / ns) as u32).clamp(1, MOST_REPEATS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_long_enough_and_few_enough() {
        assert_eq!([repeats(1.0), repeats(1e6), repeats(1e9)], [64, 4, 1]);
    }

    #[test]
    fn spreads_are_of_sorted_samples() {
        let spread = Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(spread, Spread { median: 3.0, min: 1.0, p90: 5.0 });
    }
}
