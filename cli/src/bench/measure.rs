//! Timing recorded work: by the device's timestamps where it has any, and by the wall clock.

use std::time::Instant;

use serde::Serialize;
use wgnorm::Context;

use super::warmth::Warmth;
use crate::Refusal;

/// Median, minimum and 90th percentile of one execution, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub p90: f64,
}

impl Spread {
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |quantile: f64| samples[((samples.len() - 1) as f64 * quantile).round() as usize];
        Self { median: at(0.5), min: at(0.0), p90: at(0.9) }
    }
}

/// Times of some work, and the bytes that it moves.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub device: Option<Spread>,
    pub wall: Spread,
    pub bytes: u64,
}

impl Times {
    /// The device's time if there is one.
    pub fn best(&self) -> Spread {
        self.device.unwrap_or(self.wall)
    }
}

/// Records work on the set of tensors with the given number.
type Record<'a> = Box<dyn FnMut(&mut wgpu::ComputePass<'_>, usize) + 'a>;

/// Records copies that make a set of tensors what it was before.
type Restore<'a> = Box<dyn Fn(&mut wgpu::CommandEncoder, usize) + 'a>;

/// Work that can be recorded into a pass again and again, on any set of tensors, and the bytes that one recording moves.
pub struct Work<'a> {
    pub record: Record<'a>,
    pub bytes: u64,
    /// For work that writes over its input: on its own output, again and again, values would overflow or become
    /// subnormal. It runs once on a set, which is then restored outside of the measured time.
    pub restore: Option<Restore<'a>>,
}

/// A stopwatch for recorded work.
pub struct Meter<'c> {
    context: &'c Context,
    samples: u32,
    timestamps: Option<Timestamps>,
    warmth: Warmth,
}

/// Nanoseconds of one recording, by the device's clock and by the wall's.
type Sample = (Option<f64>, f64);

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    period_ns: f64,
}

/// One sample should last this long, so that the cost of a submission does not matter.
const SAMPLE_NS: f64 = 4e6;
const MOST_REPEATS: u32 = 64;

impl<'c> Meter<'c> {
    pub fn new(context: &'c Context, samples: u32, adapter: Option<&str>) -> Result<Self, Refusal> {
        let device = context.device();
        let timestamps = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Timestamps {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("benchmark"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("benchmark timestamps"),
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            }),
            period_ns: f64::from(context.queue().get_timestamp_period()),
        });
        Ok(Self { context, samples, timestamps, warmth: Warmth::start(context, adapter) })
    }

    /// Whose clock decides.
    pub fn clock(&self) -> &'static str {
        if self.timestamps.is_some() { "device" } else { "wall clock (the adapter has no timestamps)" }
    }

    /// Times several kinds of work, their samples interleaved, so that a machine whose speed drifts slows all alike.
    ///
    /// All take turns on the same `sets` of tensors: with several, none finds in the cache what another left there.
    pub fn time(&mut self, works: &mut [Work<'_>], sets: usize) -> Result<Vec<Times>, Refusal> {
        let _alone = self.warmth.paused();
        let mut next = 0;
        let mut turn = || {
            next = (next + 1) % sets;
            next
        };
        // All repeat alike, so that the costs of a submission weigh alike.
        let most = match works.iter().any(|work| work.restore.is_some()) {
            true => MOST_REPEATS.min(sets as u32),
            false => MOST_REPEATS,
        };
        let mut repeats = Vec::new();
        for work in works.iter_mut() {
            // The first use compiles and clears; the second tells how long one takes.
            self.sample(work, sets as u32, &mut turn)?;
            let (_, wall) = self.sample(work, 1, &mut turn)?;
            repeats.push(((SAMPLE_NS / wall) as u32).clamp(1, most));
        }
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); works.len()];
        for _ in 0..self.samples {
            for ((work, &repeats), samples) in works.iter_mut().zip(&repeats).zip(&mut samples) {
                samples.push(self.sample(work, repeats, &mut turn)?);
            }
        }
        let times = |(work, samples): (&mut Work<'_>, &Vec<Sample>)| {
            let device: Option<Vec<f64>> = samples.iter().map(|(device, _)| *device).collect();
            Times {
                device: device.map(Spread::of),
                wall: Spread::of(samples.iter().map(|(_, wall)| *wall).collect()),
                bytes: work.bytes,
            }
        };
        Ok(works.iter_mut().zip(&samples).map(times).collect())
    }

    /// One submission of `repeats` recordings.
    fn sample(
        &self,
        work: &mut Work<'_>,
        repeats: u32,
        turn: &mut impl FnMut() -> usize,
    ) -> Result<Sample, Refusal> {
        let (device, queue) = (self.context.device(), self.context.queue());
        let mut encoder = device.create_command_encoder(&Default::default());
        let used: Vec<usize> = (0..repeats).map(|_| turn()).collect();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("benchmark"),
                timestamp_writes: self.timestamps.as_ref().map(|t| wgpu::ComputePassTimestampWrites {
                    query_set: &t.queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                }),
            });
            for &set in &used {
                (work.record)(&mut pass, set);
            }
        }
        if let Some(t) = &self.timestamps {
            encoder.resolve_query_set(&t.queries, 0..2, &t.resolved, 0);
        }
        let commands = encoder.finish();
        let started = Instant::now();
        queue.submit([commands]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let wall = started.elapsed().as_nanos() as f64 / f64::from(repeats);
        let device_ns = self.timestamps.as_ref().map(|t| self.read(t)).transpose()?;
        if let Some(restore) = &work.restore {
            let mut encoder = device.create_command_encoder(&Default::default());
            used.iter().for_each(|&set| restore(&mut encoder, set));
            queue.submit([encoder.finish()]);
            device.poll(wgpu::PollType::wait_indefinitely())?;
        }
        Ok((device_ns.map(|ns| ns / f64::from(repeats)), wall))
    }

    fn read(&self, timestamps: &Timestamps) -> Result<f64, Refusal> {
        let resolved = wgnorm::Tensor::from_buffer(self.context, timestamps.resolved.clone(), 0, &[4])?;
        let words = self.context.block_on(self.context.download(&resolved))?;
        let tick = |i: usize| u64::from(words[i].to_bits()) | u64::from(words[i + 1].to_bits()) << 32;
        Ok(tick(2).saturating_sub(tick(0)) as f64 * timestamps.period_ns)
    }
}

/// Runs wgpu calls inside error scopes; what they catch is the error.
pub fn scoped<T>(context: &Context, calls: impl FnOnce() -> T) -> Result<T, String> {
    let device = context.device();
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = calls();
    for scope in [validation.pop(), memory.pop()] {
        if let Some(error) = context.block_on(scope) {
            return Err(error.to_string());
        }
    }
    Ok(value)
}
