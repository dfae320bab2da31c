//! Timing prepared operations against each other: by the device's timestamps where it has any, else by the wall clock.

use super::Pin;
use super::pins::TuningSource;
use crate::base::error::{Error, Result};
use crate::engine::buffer::Buffer;
use crate::engine::context::Context;
use crate::engine::prepared::Prepared;
use crate::engine::readback;
use crate::engine::scope::scoped;
use crate::plan::Tuning;

/// By how much a plan must be faster than the policy's to replace it: what a measurement of a few milliseconds can tell.
const MARGIN: f64 = 0.03;
/// Samples of each plan. All plans take turns, so that a device whose speed drifts slows all alike.
const ROUNDS: usize = 5;
/// Samples of the fastest and of the policy's plan, one beside the other. Of a dozen plans that are equally fast, one is the fastest by
/// chance; it is not by chance again.
const DUELS: usize = 9;
/// One sample of the policy's plan should last this long, so that the costs of a submission do not matter.
const SAMPLE_NS: f64 = 2e6;
const MOST_REPEATS: u32 = 64;
/// Plans that are so many times as slow as the best in their first sample are not sampled again.
const HOPELESS: f64 = 2.0;

/// Keeps what could be prepared: a plan that does not compile is none. The first is the policy's, and must.
pub(crate) fn keep(
    plans: &mut Vec<(Tuning, Prepared)>,
    tuning: Tuning,
    prepared: Result<Prepared>,
) -> Result<()> {
    match prepared {
        Ok(prepared) => plans.push((tuning, prepared)),
        Err(error) if plans.is_empty() => return Err(error),
        Err(_) => {}
    }
    Ok(())
}

/// The plan that is kept: the fastest, if it is faster than the first, the policy's, by [`MARGIN`].
pub(crate) async fn fastest(context: &Context, plans: &[(Tuning, Prepared)]) -> Result<Pin> {
    let clock = Clock::new(context).await?;
    let mut first = Vec::new();
    for (_, prepared) in plans {
        // The first use compiles and clears; the second tells how long it takes.
        clock.sample(prepared, 1).await?;
        first.push(clock.sample(prepared, 1).await?);
    }
    let best = first.iter().copied().fold(f64::INFINITY, f64::min);
    let policy = first.first().copied().unwrap_or(SAMPLE_NS);
    let repeats = ((SAMPLE_NS / policy.max(1.0)) as u32).clamp(1, MOST_REPEATS);
    let hopeful = |plan: &usize| *plan == 0 || first[*plan] <= HOPELESS * best;
    let hopeful: Vec<usize> = (0..plans.len()).filter(hopeful).collect();
    let mut samples = vec![Vec::new(); plans.len()];
    for _ in 0..ROUNDS {
        for &plan in &hopeful {
            samples[plan].push(clock.sample(&plans[plan].1, repeats).await?);
        }
    }
    let medians: Vec<_> = hopeful.into_iter().map(|plan| (plan, median(&samples[plan]))).collect();
    let policy_ns = medians.first().map_or(f64::NAN, |(_, ns)| *ns);
    let kept = |tuning, ns, policy_ns| {
        Ok(Pin { tuning, source: TuningSource::Measured { ns, policy_ns, plans: plans.len() } })
    };
    let (Some((_, policy)), Some((tuning, rival))) = (plans.first(), plans.get(rival(&medians))) else {
        return kept(Tuning::default(), policy_ns, policy_ns);
    };
    if *tuning == Tuning::default() {
        return kept(*tuning, policy_ns, policy_ns);
    }
    let (mut of_policy, mut of_rival) = (Vec::new(), Vec::new());
    for _ in 0..DUELS {
        of_policy.push(clock.sample(policy, repeats).await?);
        of_rival.push(clock.sample(rival, repeats).await?);
    }
    let (ns, policy_ns) = (median(&of_rival), median(&of_policy));
    match wins(&of_rival, &of_policy) {
        true => kept(*tuning, ns, policy_ns),
        false => kept(Tuning::default(), policy_ns, policy_ns),
    }
}

/// The fastest of plans and their times.
fn rival(medians: &[(usize, f64)]) -> usize {
    medians.iter().min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(plan, _)| *plan)
}

/// Whether samples are faster than those taken beside them, by [`MARGIN`]: each than its neighbour, whatever the speed of the device was
/// just then, and as a whole.
fn wins(samples: &[f64], beside: &[f64]) -> bool {
    let ratios: Vec<f64> = samples.iter().zip(beside).map(|(sample, beside)| sample / beside).collect();
    median(&ratios) < 1.0 - MARGIN && median(samples) < (1.0 - MARGIN) * median(beside)
}

fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A stopwatch for recorded operations.
struct Clock<'c> {
    context: &'c Context,
    timestamps: Option<wgpu::QuerySet>,
    /// What is read back after the work, to wait for it: the timestamps, if there are any.
    end: Buffer,
}

/// Bytes of two timestamps.
const TICKS_BYTES: u64 = 16;

impl<'c> Clock<'c> {
    async fn new(context: &'c Context) -> Result<Self> {
        let device = context.device();
        let has_timestamps = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        if !has_timestamps && cfg!(target_family = "wasm") {
            let what = "timestamps to measure plans by";
            return Err(Error::MissingCapability { what, needed: 1, got: 0 });
        }
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let end = Buffer::own(context.create_gpu_buffer("timestamps", TICKS_BYTES, usage).await?);
        let create = || {
            device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        };
        let timestamps = match has_timestamps {
            true => Some(scoped(context, "timestamps", create).await?),
            false => None,
        };
        Ok(Self { context, timestamps, end })
    }

    /// Nanoseconds of one of so many executions in one pass.
    async fn sample(&self, prepared: &Prepared, repeats: u32) -> Result<f64> {
        let context = self.context;
        let started = Wall::now();
        scoped(context, "a measurement", || {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("measurement"),
                timestamp_writes: self.timestamps.as_ref().map(|queries| wgpu::ComputePassTimestampWrites {
                    query_set: queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                }),
            });
            for _ in 0..repeats {
                prepared.dispatch_in(&mut pass);
            }
            drop(pass);
            if let Some(queries) = &self.timestamps {
                encoder.resolve_query_set(queries, 0..2, self.end.gpu(), 0);
            }
            context.queue().submit([encoder.finish()]);
        })
        .await?;
        let bytes = readback::read(context, &self.end, 0, TICKS_BYTES).await?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let ns = match (&self.timestamps, ticks.as_slice()) {
            (Some(_), &[begin, end]) => {
                end.saturating_sub(begin) as f64 * f64::from(context.queue().get_timestamp_period())
            }
            _ => started.elapsed_ns(),
        };
        Ok(ns / f64::from(repeats))
    }
}

/// The wall clock, where there is one.
struct Wall {
    #[cfg(not(target_family = "wasm"))]
    started: std::time::Instant,
}

impl Wall {
    fn now() -> Self {
        Self {
            #[cfg(not(target_family = "wasm"))]
            started: std::time::Instant::now(),
        }
    }

    fn elapsed_ns(&self) -> f64 {
        #[cfg(not(target_family = "wasm"))]
        return self.started.elapsed().as_nanos() as f64;
        #[cfg(target_family = "wasm")]
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_faster_wins() {
        assert_eq!(rival(&[(0, 100.0), (2, 98.0), (5, 120.0)]), 2);
        assert_eq!(rival(&[(0, 90.0), (2, 98.0)]), 0);
        assert_eq!(rival(&[]), 0);
        // A device that slows down on the way: each is 5 %, or 2 %, faster than its neighbour.
        let policy = [100.0, 150.0, 200.0, 250.0];
        assert!(wins(&policy.map(|ns| 0.95 * ns), &policy));
        assert!(!wins(&policy.map(|ns| 0.98 * ns), &policy));
        // Faster than most neighbours, but not as a whole.
        assert!(!wins(&[90.0, 190.0, 190.0], &[100.0, 100.0, 200.0]));
        // Timestamps that say nothing.
        assert!(!wins(&[0.0; 3], &[0.0; 3]) && !wins(&[], &[]));
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}
