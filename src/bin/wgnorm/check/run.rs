//! Running a problem on the GPU in every variant, and holding the results against what is expected.

use wgnorm::reference::{Worst, compare};
use wgnorm::{
    Accumulation, BatchNorm, Context, Error, GradientTargets, Layout, Result, RunningStatistics,
    RunningValues, Saved, Tensor, Tuning,
};

use super::case::{Expected, Problem, Task};
use super::{OutputReport, RunReport};

/// Outputs by name.
type Outputs = Vec<(String, Vec<f32>)>;

/// Plans and placements that together reach both word widths, split and whole slices, shifted and shared buffers; the first
/// runs twice, for the bits.
fn variants() -> [(&'static str, Tuning, Placement); 7] {
    let free = Tuning::default();
    [
        ("policy", free, Placement::Apart),
        ("repeat", free, Placement::Apart),
        ("scalar", Tuning { width: Some(1), ..free }, Placement::Apart),
        ("split", Tuning { splits: Some(3), ..free }, Placement::Apart),
        ("many splits", Tuning { splits: Some(100), workgroup_size: Some(32), ..free }, Placement::Apart),
        ("shifted", free, Placement::Shifted),
        ("one buffer", free, Placement::OneBuffer),
    ]
}

/// Where tensors lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// Each at the start of a buffer of its own.
    Apart,
    /// Each a few elements into a buffer of its own.
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
                let shift = self.placed.get() % 3 + 1;
                self.placed.set(self.placed.get() + 1);
                let whole = self.context.zeros(&[values.len() + shift as usize]).await?;
                let tensor = Tensor::from_buffer(self.context, whole.buffer().clone(), 4 * shift, dims)?;
                write(&tensor);
                Ok(tensor)
            }
        }
    }
}

/// Bytes between tensors of one buffer: the coarsest granularity of bindings.
const GAP: u64 = 256;

/// Runs every variant; returns the reports and a line for each output that fails.
pub fn all_variants(context: &Context, problem: &Problem) -> Result<(Vec<RunReport>, Vec<String>)> {
    let mut runs: Vec<RunReport> = Vec::new();
    let mut failures = Vec::new();
    let mut first: Option<Outputs> = None;
    for (variant, tuning, placement) in variants() {
        let context = context.with_tuning(tuning);
        let (outputs, kernels) = context.block_on(outputs(&context, placement, problem))?;
        for expected in &problem.expected {
            let Some((_, got)) = outputs.iter().find(|(name, _)| *name == expected.name) else {
                failures.push(format!("{variant} {}: the program does not compute it", expected.name));
                continue;
            };
            let (report, failure) = judge(expected, got);
            if let Some(failure) = failure {
                failures.push(format!("{variant} {}: {failure}; kernels: {kernels}", expected.name));
            }
            let pass = expected.pass();
            match runs.iter_mut().find(|run| run.pass == pass && run.variant == variant) {
                Some(run) => run.outputs.push(report),
                None => runs.push(RunReport {
                    pass,
                    layout: Layout::ChannelsFirst.name(),
                    variant,
                    outputs: vec![report],
                }),
            }
        }
        match &first {
            None => first = Some(outputs),
            Some(first) if variant == "repeat" => {
                for ((name, before), (_, now)) in first.iter().zip(&outputs) {
                    if before.iter().zip(now).any(|(a, b)| a.to_bits() != b.to_bits()) {
                        failures.push(format!("{name}: other bits in a second run; kernels: {kernels}"));
                    }
                }
            }
            Some(_) => {}
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
async fn outputs(context: &Context, placement: Placement, problem: &Problem) -> Result<(Outputs, String)> {
    let arena = Arena::new(context, placement, problem).await?;
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
    let output = async |dims: &[usize]| {
        let len = dims.iter().product();
        arena.put(dims, &vec![f32::NAN; len]).await
    };

    match &problem.task {
        Task::Train { x, dy } => {
            let x = arena.put(&problem.dims, x).await?;
            let y = output(&problem.dims).await?;
            let saved = Saved::new(context, &x).await?;
            let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await?;
            kernels.extend(forward.kernels().map(str::to_owned));
            layer.submit(&forward).await?;
            outputs.push(("y".to_owned(), context.download(&y).await?));
            push_running(&mut outputs, "", layer.running().download(context).await?);
            let statistics = saved.download(context).await?;
            let column = |f: fn(&wgnorm::SavedStatistics) -> f32| statistics.iter().map(f).collect();
            outputs.push(("save_mean".to_owned(), column(|s| s.mean() as f32)));
            outputs.push(("save_var".to_owned(), column(|s| s.var)));
            outputs.push(("save_invstd".to_owned(), column(|s| s.inv_std)));
            if let Some(dy) = dy {
                let dy = arena.put(&problem.dims, dy).await?;
                let dx = output(&problem.dims).await?;
                let (dgamma, dbeta) = (output(&[c]).await?, output(&[c]).await?);
                let targets = targets(problem, &dx, &dgamma, &dbeta);
                let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
                kernels.extend(backward.kernels().map(str::to_owned));
                context.submit(&[&backward]).await?;
                push_gradients(context, &mut outputs, "", &targets).await?;
                // Once more, added to what is there now.
                let targets = GradientTargets { accumulation: Accumulation::Add, dx: None, ..targets };
                if targets.dgamma.is_some() || targets.dbeta.is_some() {
                    let again = layer.prepare_backward(&x, &dy, &saved, &targets).await?;
                    kernels.extend(again.kernels().map(str::to_owned));
                    context.submit(&[&again]).await?;
                    push_gradients(context, &mut outputs, "_twice", &targets).await?;
                }
            }
        }
        Task::Eval { x, dy } => {
            let x = arena.put(&problem.dims, x).await?;
            let y = output(&problem.dims).await?;
            let layer = layer.freeze();
            let forward = layer.prepare_forward(&x, &y).await?;
            kernels.extend(forward.kernels().map(str::to_owned));
            context.submit(&[&forward]).await?;
            outputs.push(("y".to_owned(), context.download(&y).await?));
            if let Some(dy) = dy {
                let dy = arena.put(&problem.dims, dy).await?;
                let dx = output(&problem.dims).await?;
                let (dgamma, dbeta) = (output(&[c]).await?, output(&[c]).await?);
                let targets = targets(problem, &dx, &dgamma, &dbeta);
                let backward = layer.prepare_backward(&x, &dy, &targets).await?;
                kernels.extend(backward.kernels().map(str::to_owned));
                context.submit(&[&backward]).await?;
                push_gradients(context, &mut outputs, "", &targets).await?;
                // Once more, added to what is there now.
                let targets = GradientTargets { accumulation: Accumulation::Add, dx: None, ..targets };
                if targets.dgamma.is_some() || targets.dbeta.is_some() {
                    let again = layer.prepare_backward(&x, &dy, &targets).await?;
                    kernels.extend(again.kernels().map(str::to_owned));
                    context.submit(&[&again]).await?;
                    push_gradients(context, &mut outputs, "_twice", &targets).await?;
                }
            }
        }
        Task::Sequence { steps, x_eval } => {
            for (step, batch) in steps.iter().enumerate() {
                let x = context.upload(&batch.dims, &batch.values).await?;
                let y = output(&batch.dims).await?;
                let forward = layer.prepare_train_forward(&x, &y, None).await?;
                kernels.extend(forward.kernels().map(str::to_owned));
                layer.submit(&forward).await?;
                let running = layer.running().download(context).await?;
                push_running(&mut outputs, &format!("_{step}"), running);
            }
            let x = arena.put(&x_eval.dims, &x_eval.values).await?;
            let y = layer.freeze().forward(&x).await?;
            outputs.push(("y_eval".to_owned(), context.download(&y).await?));
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
    context: &Context,
    outputs: &mut Outputs,
    suffix: &str,
    targets: &GradientTargets<'_>,
) -> Result<()> {
    for (name, tensor) in [("dx", targets.dx), ("dweight", targets.dgamma), ("dbias", targets.dbeta)] {
        if let Some(tensor) = tensor {
            outputs.push((format!("{name}{suffix}"), context.download(tensor).await?));
        }
    }
    Ok(())
}

fn push_running(outputs: &mut Outputs, suffix: &str, running: RunningValues) {
    outputs.push((format!("running_mean{suffix}"), running.mean));
    outputs.push((format!("running_var{suffix}"), running.var));
}
