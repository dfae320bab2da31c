//! Running a problem on the GPU in every variant, and holding the results against what is expected.

use wgnorm::reference::{Worst, compare};
use wgnorm::{
    Accumulation, BatchNorm, Context, Error, GradientTargets, Layout, Result, RunningStatistics,
    RunningValues, Saved, Tensor, Tuning,
};

use super::case::{Expected, Problem, Task};
use super::{OutputReport, RunReport};
use crate::layout;

/// Outputs by name.
type Outputs = Vec<(String, Vec<f32>)>;

/// Plans and placements that together reach both word widths, whole, split and shared workgroups, words that slices share,
/// shifted and shared buffers; the first runs twice, for the bits.
fn variants() -> [(&'static str, Tuning, Placement); 11] {
    let free = Tuning::default();
    [
        ("policy", free, Placement::Apart),
        ("repeat", free, Placement::Apart),
        ("scalar", Tuning { width: Some(1), ..free }, Placement::Apart),
        ("split", Tuning { splits: Some(3), ..free }, Placement::Apart),
        ("many splits", Tuning { splits: Some(100), workgroup_size: Some(32), ..free }, Placement::Apart),
        (
            "teams",
            Tuning { workgroup_size: Some(32), team_size: Some(8), rows: Some(2), strip: Some(2), ..free },
            Placement::Apart,
        ),
        (
            "large teams",
            Tuning { workgroup_size: Some(8), team_size: Some(8), splits: Some(1), ..free },
            Placement::Apart,
        ),
        ("phase 1", free, Placement::Phase(1)),
        ("phase 3, split", Tuning { splits: Some(2), strip: Some(1), ..free }, Placement::Phase(3)),
        ("shifted", free, Placement::Shifted),
        ("one buffer", free, Placement::OneBuffer),
    ]
}

/// Where tensors lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// Each at the start of a buffer of its own.
    Apart,
    /// Each at this element of a buffer of its own.
    Phase(u64),
    /// Each a few elements into a buffer of its own, not all as many.
    Shifted,
    /// All in one buffer, with gaps between them.
    OneBuffer,
}

/// Places the tensors of a problem.
struct Arena<'c> {
    context: &'c Context,
    placement: Placement,
    shared: Option<wgpu::Buffer>,
    /// First free byte of the shared buffer.
    next: std::cell::Cell<u64>,
    placed: std::cell::Cell<u64>,
}

impl<'c> Arena<'c> {
    async fn new(context: &'c Context, placement: Placement, problem: &Problem) -> Result<Self> {
        let elements = |dims: &[usize]| dims.iter().product::<usize>();
        // What `outputs` places: x, y, dy, dx, or one y per step; and up to four values per channel.
        let tensors: Vec<usize> = match &problem.task {
            Task::Train { .. } | Task::Eval { .. } => vec![elements(&problem.dims); 4],
            Task::Sequence { steps, x_eval } => {
                steps.iter().chain([x_eval]).map(|batch| elements(&batch.dims)).collect()
            }
        };
        let blocks = tensors.len() + 4;
        let words = tensors.iter().sum::<usize>() + 4 * problem.dims[1] + blocks * 2 * GAP as usize / 4;
        let shared = match placement {
            Placement::OneBuffer => Some(context.zeros(&[words]).await?.buffer().clone()),
            _ => None,
        };
        Ok(Self { context, placement, shared, next: 0.into(), placed: 0.into() })
    }

    /// A tensor with the given values.
    async fn put(&self, dims: &[usize], values: &[f32]) -> Result<Tensor> {
        let bytes = bytemuck::cast_slice(values);
        let write = |tensor: &Tensor| {
            self.context.queue().write_buffer(tensor.buffer(), tensor.byte_offset(), bytes);
        };
        match (self.placement, &self.shared) {
            (Placement::Apart, _) => self.context.upload(dims, values).await,
            (_, Some(buffer)) => {
                let at = self.next.get();
                self.next.set((at + bytes.len() as u64).next_multiple_of(GAP) + GAP);
                let tensor = Tensor::from_buffer(self.context, buffer.clone(), at, dims)?;
                write(&tensor);
                Ok(tensor)
            }
            (_, None) => {
                // 1, 2, 3, 1, … elements: no two tensors of an operation in the same phase.
                let shift = match self.placement {
                    Placement::Phase(phase) => phase,
                    _ => self.placed.get() % 3 + 1,
                };
                self.placed.set(self.placed.get() + 1);
                let whole = self.context.zeros(&[values.len() + shift as usize]).await?;
                let tensor = Tensor::from_buffer(self.context, whole.buffer().clone(), 4 * shift, dims)?;
                write(&tensor);
                Ok(tensor)
            }
        }
    }
}

/// Batches in one layout.
struct Batches<'c> {
    arena: Arena<'c>,
    stored: Layout,
    layout: Layout,
}

impl Batches<'_> {
    /// A tensor with values in stored order; `dims` are logical.
    async fn put(&self, dims: &[usize], values: &[f32]) -> Result<Tensor> {
        let values = layout::rearranged(values, dims, self.stored, self.layout);
        let tensor = self.arena.put(&layout::memory_dims(self.layout, dims), &values).await?;
        Ok(tensor.with_layout(self.layout))
    }

    /// A tensor of NaN.
    async fn output(&self, dims: &[usize]) -> Result<Tensor> {
        self.put(dims, &vec![f32::NAN; dims.iter().product()]).await
    }

    /// The values of a tensor in stored order.
    async fn get(&self, dims: &[usize], tensor: &Tensor) -> Result<Vec<f32>> {
        let values = self.arena.context.download(tensor).await?;
        Ok(layout::rearranged(&values, dims, self.layout, self.stored))
    }
}

/// Bytes between tensors of one buffer: the coarsest granularity of bindings.
const GAP: u64 = 256;

/// Runs every variant; returns the reports and a line for each output that fails.
pub fn all_variants(context: &Context, problem: &Problem) -> Result<(Vec<RunReport>, Vec<String>)> {
    let mut runs: Vec<RunReport> = Vec::new();
    let mut failures = Vec::new();
    for &layout in &problem.layouts {
        let mut first: Option<Outputs> = None;
        for (variant, tuning, placement) in variants() {
            let context = context.with_tuning(tuning);
            let (outputs, kernels) = context.block_on(outputs(&context, placement, problem, layout))?;
            for expected in &problem.expected {
                let Some((_, got)) = outputs.iter().find(|(name, _)| *name == expected.name) else {
                    failures.push(format!("{variant} {}: the program does not compute it", expected.name));
                    continue;
                };
                let (report, failure) = judge(expected, got);
                if let Some(failure) = failure {
                    let name = &expected.name;
                    failures.push(format!("{layout} {variant} {name}: {failure}; kernels: {kernels}"));
                }
                let (pass, layout) = (expected.pass(), layout.name());
                let same =
                    |run: &&mut RunReport| run.pass == pass && run.variant == variant && run.layout == layout;
                match runs.iter_mut().find(same) {
                    Some(run) => run.outputs.push(report),
                    None => runs.push(RunReport { pass, layout, variant, outputs: vec![report] }),
                }
            }
            match &first {
                None => first = Some(outputs),
                Some(first) if variant == "repeat" => {
                    for ((name, before), (_, now)) in first.iter().zip(&outputs) {
                        if before.iter().zip(now).any(|(a, b)| a.to_bits() != b.to_bits()) {
                            failures.push(format!(
                                "{layout} {name}: other bits in a second run; kernels: {kernels}"
                            ));
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }
    Ok((runs, failures))
}

/// Compares one output. The failure names index, values, error and bound.
fn judge(expected: &Expected, got: &[f32]) -> (OutputReport, Option<String>) {
    let sampled: Vec<f32>;
    let got = match &expected.sample {
        None => got,
        Some(sample) => {
            sampled = sample.iter().map(|&i| got.get(i).copied().unwrap_or(f32::NAN)).collect();
            &sampled
        }
    };
    let finite = |ratio: f64| ratio.is_finite().then_some(ratio);
    let compared = |bound: &[f64]| compare(got, &expected.values, expected.where_nan(), |i| bound[i]);
    match (compared(&expected.gate), compared(&expected.strict)) {
        (Ok(gate), Ok(strict)) => (
            OutputReport {
                name: expected.name.clone(),
                max_abs_err: finite(gate.max_abs_err),
                gate_ratio: finite(gate.ratio),
                strict_ratio: finite(strict.ratio),
                peer_err: expected.peer_err,
            },
            (!gate.passes()).then(|| {
                let index = expected.sample.as_ref().map_or(gate.index, |sample| sample[gate.index]);
                Worst { index, ..gate }.to_string()
            }),
        ),
        (Err(error), _) | (_, Err(error)) => (
            OutputReport {
                name: expected.name.clone(),
                max_abs_err: None,
                gate_ratio: None,
                strict_ratio: None,
                peer_err: expected.peer_err,
            },
            Some(error.to_string()),
        ),
    }
}

/// Runs a problem once, on outputs filled with NaN. The kernels are named for the report of a failure.
async fn outputs(
    context: &Context,
    placement: Placement,
    problem: &Problem,
    layout: Layout,
) -> Result<(Outputs, String)> {
    let arena = Arena::new(context, placement, problem).await?;
    let batches = Batches { arena, stored: problem.stored, layout };
    let (arena, dims) = (&batches.arena, &problem.dims);
    let mut outputs = Outputs::new();
    let mut kernels = Vec::new();
    let c = problem.dims[1];
    let parameter = async |values: &Option<Vec<f32>>| match values {
        Some(values) => Ok::<_, Error>(Some(arena.put(&[c], values).await?)),
        None => Ok(None),
    };
    let (gamma, beta) = (parameter(&problem.gamma).await?, parameter(&problem.beta).await?);
    let running = RunningStatistics::upload(context, &problem.running).await?;
    let mut layer = BatchNorm::from_parts(context, problem.options, gamma, beta, running)?;
    let per_channel = async || arena.put(&[c], &vec![f32::NAN; c]).await;

    match &problem.task {
        Task::Train { x, dy } => {
            let x = batches.put(dims, x).await?;
            let y = batches.output(dims).await?;
            let saved = Saved::new(context, &x).await?;
            let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await?;
            kernels.extend(forward.kernels().map(str::to_owned));
            layer.submit(&forward).await?;
            outputs.push(("y".to_owned(), batches.get(dims, &y).await?));
            push_running(&mut outputs, "", layer.running().download(context).await?);
            let statistics = saved.download(context).await?;
            let column = |f: fn(&wgnorm::SavedStatistics) -> f32| statistics.iter().map(f).collect();
            outputs.push(("save_mean".to_owned(), column(|s| s.mean() as f32)));
            outputs.push(("save_var".to_owned(), column(|s| s.var)));
            outputs.push(("save_invstd".to_owned(), column(|s| s.inv_std)));
            if let Some(dy) = dy {
                let dy = batches.put(dims, dy).await?;
                let dx = batches.output(dims).await?;
                let (dgamma, dbeta) = (per_channel().await?, per_channel().await?);
                let targets = targets(problem, &dx, &dgamma, &dbeta);
                let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
                kernels.extend(backward.kernels().map(str::to_owned));
                context.submit(&[&backward]).await?;
                push_gradients(&batches, dims, &mut outputs, "", &targets).await?;
                // Once more, added to what is there now.
                let targets = GradientTargets { accumulation: Accumulation::Add, dx: None, ..targets };
                if targets.dgamma.is_some() || targets.dbeta.is_some() {
                    let again = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
                    kernels.extend(again.kernels().map(str::to_owned));
                    context.submit(&[&again]).await?;
                    push_gradients(&batches, dims, &mut outputs, "_twice", &targets).await?;
                }
            }
        }
        Task::Eval { x, dy } => {
            let x = batches.put(dims, x).await?;
            let y = batches.output(dims).await?;
            let layer = layer.freeze();
            let forward = layer.prepare_forward(&x, &y).await?;
            kernels.extend(forward.kernels().map(str::to_owned));
            context.submit(&[&forward]).await?;
            outputs.push(("y".to_owned(), batches.get(dims, &y).await?));
            if let Some(dy) = dy {
                let dy = batches.put(dims, dy).await?;
                let dx = batches.output(dims).await?;
                let (dgamma, dbeta) = (per_channel().await?, per_channel().await?);
                let targets = targets(problem, &dx, &dgamma, &dbeta);
                let backward = layer.prepare_backward(&x, &dy, &targets).await?;
                kernels.extend(backward.kernels().map(str::to_owned));
                context.submit(&[&backward]).await?;
                push_gradients(&batches, dims, &mut outputs, "", &targets).await?;
                // Once more, added to what is there now.
                let targets = GradientTargets { accumulation: Accumulation::Add, dx: None, ..targets };
                if targets.dgamma.is_some() || targets.dbeta.is_some() {
                    let again = layer.prepare_backward(&x, &dy, &targets).await?;
                    kernels.extend(again.kernels().map(str::to_owned));
                    context.submit(&[&again]).await?;
                    push_gradients(&batches, dims, &mut outputs, "_twice", &targets).await?;
                }
            }
        }
        Task::Sequence { steps, x_eval } => {
            for (step, batch) in steps.iter().enumerate() {
                let x = layout::rearranged(&batch.values, &batch.dims, problem.stored, layout);
                let x = context.upload(&layout::memory_dims(layout, &batch.dims), &x).await?;
                let x = x.with_layout(layout);
                let y = batches.output(&batch.dims).await?;
                let forward = layer.prepare_train_forward(&x, &y, None).await?;
                kernels.extend(forward.kernels().map(str::to_owned));
                layer.submit(&forward).await?;
                let running = layer.running().download(context).await?;
                push_running(&mut outputs, &format!("_{step}"), running);
            }
            let x = batches.put(&x_eval.dims, &x_eval.values).await?;
            let y = layer.freeze().forward(&x).await?;
            outputs.push(("y_eval".to_owned(), batches.get(&x_eval.dims, &y).await?));
        }
    }
    kernels.dedup();
    Ok((outputs, kernels.join(", ")))
}

fn targets<'a>(
    problem: &Problem,
    dx: &'a Tensor,
    dgamma: &'a Tensor,
    dbeta: &'a Tensor,
) -> GradientTargets<'a> {
    GradientTargets {
        dx: Some(dx),
        dgamma: problem.gamma.as_ref().map(|_| dgamma),
        dbeta: problem.beta.as_ref().map(|_| dbeta),
        ..Default::default()
    }
}

async fn push_gradients(
    batches: &Batches<'_>,
    dims: &[usize],
    outputs: &mut Outputs,
    suffix: &str,
    targets: &GradientTargets<'_>,
) -> Result<()> {
    if let Some(dx) = targets.dx {
        outputs.push((format!("dx{suffix}"), batches.get(dims, dx).await?));
    }
    for (name, tensor) in [("dweight", targets.dgamma), ("dbias", targets.dbeta)] {
        if let Some(tensor) = tensor {
            outputs.push((format!("{name}{suffix}"), batches.arena.context.download(tensor).await?));
        }
    }
    Ok(())
}

fn push_running(outputs: &mut Outputs, suffix: &str, running: RunningValues) {
    outputs.push((format!("running_mean{suffix}"), running.mean));
    outputs.push((format!("running_var{suffix}"), running.var));
}
