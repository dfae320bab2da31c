//! Timing recorded work: by the device's timestamps where it has any, and by the wall clock.

use std::time::Instant;

use serde::Serialize;
use wgnorm::Context;

use crate::Refusal;

/// Median, minimum and 90th percentile of one execution, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub p90: f64,
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
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

/// Work that can be recorded into a pass again and again, and the bytes that one recording moves.
pub struct Work<'a> {
    pub record: Box<dyn FnMut(&mut wgpu::ComputePass<'_>) + 'a>,
    pub bytes: u64,
}

/// A stopwatch for recorded work.
pub struct Meter<'c> {
    context: &'c Context,
    samples: u32,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    period_ns: f64,
}

/// One sample should last this long, so that the cost of a submission does not matter.
const SAMPLE_NS: f64 = 4e6;
const MOST_REPEATS: u32 = 64;

impl<'c> Meter<'c> {
    pub fn new(context: &'c Context, samples: u32) -> Result<Self, Refusal> {
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
        Ok(Self { context, samples, timestamps })
    }

    /// Whose clock decides.
    pub fn clock(&self) -> &'static str {
        if self.timestamps.is_some() { "device" } else { "wall clock (the adapter has no timestamps)" }
    }

    /// Times several kinds of work, their samples interleaved, so that a machine whose speed drifts slows all alike.
    pub fn time<const N: usize>(&mut self, mut works: [Work<'_>; N]) -> Result<[Times; N], Refusal> {
        let mut repeats = [1; N];
        let mut samples: [Vec<(Option<f64>, f64)>; N] = std::array::from_fn(|_| Vec::new());
        for (work, repeats) in works.iter_mut().zip(&mut repeats) {
            // The first use compiles and clears; the second tells how long one takes.
            self.sample(work, 1)?;
            let (_, wall) = self.sample(work, 1)?;
            *repeats = ((SAMPLE_NS / wall) as u32).clamp(1, MOST_REPEATS);
        }
        for _ in 0..self.samples {
            for ((work, &repeats), samples) in works.iter_mut().zip(&repeats).zip(&mut samples) {
                samples.push(self.sample(work, repeats)?);
            }
        }
        let mut samples = samples.into_iter();
        Ok(works.map(|work| {
            let samples = samples.next().expect("as many samples as works");
            let device: Option<Vec<f64>> = samples.iter().map(|(device, _)| *device).collect();
            Times {
                device: device.map(Spread::of),
                wall: Spread::of(samples.iter().map(|(_, wall)| *wall).collect()),
                bytes: work.bytes,
            }
        }))
    }

    /// One submission of `repeats` recordings: nanoseconds per recording by the device and by the wall clock.
    fn sample(&self, work: &mut Work<'_>, repeats: u32) -> Result<(Option<f64>, f64), Refusal> {
        let (device, queue) = (self.context.device(), self.context.queue());
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("benchmark"),
                timestamp_writes: self.timestamps.as_ref().map(|t| wgpu::ComputePassTimestampWrites {
                    query_set: &t.queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                }),
            });
            for _ in 0..repeats {
                (work.record)(&mut pass);
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
        Ok((device_ns.map(|ns| ns / f64::from(repeats)), wall))
    }

    fn read(&self, timestamps: &Timestamps) -> Result<f64, Refusal> {
        let resolved = wgnorm::Tensor::from_buffer(self.context, timestamps.resolved.clone(), 0, &[4])?;
        let words = self.context.block_on(self.context.download(&resolved))?;
        let tick = |i: usize| u64::from(words[i].to_bits()) | u64::from(words[i + 1].to_bits()) << 32;
        Ok(tick(2).saturating_sub(tick(0)) as f64 * timestamps.period_ns)
    }
}
