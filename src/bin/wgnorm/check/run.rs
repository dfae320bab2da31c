//! Running a problem on the GPU in every variant, and holding the results against what is expected.

use wgnorm::reference::{Worst, compare_as};
use wgnorm::{
    Accumulation, BatchNorm, Context, Error, FrozenBatchNorm, GradientTargets, Input, Layout, Mask, Prepared,
    Result, RunningStatistics, RunningValues, Saved, Tensor,
};

use super::arena::{Arena, Role};
use super::case::{Expected, Problem, Task};
use super::variant::{self, Placement};
use super::{OutputReport, RunReport, sync};
use crate::layout;

/// Outputs by name.
pub type Outputs = Vec<(String, Vec<f32>)>;

/// Runs every variant that applies; returns the reports and a line for each output that fails.
pub fn all_variants(context: &Context, problem: &Problem) -> (Vec<RunReport>, Vec<String>) {
    let mut runs: Vec<RunReport> = Vec::new();
    let mut failures = Vec::new();
    for &layout in &problem.layouts {
        let mut first: Option<Outputs> = None;
        for variant in variant::all().iter().filter(|variant| variant.applies(problem)) {
            let name = variant.name;
            let context = context.with_tuning(variant.tuning);
            let mut run = Run::new(&context, problem, layout);
            let stopped = match context.block_on(run.all(variant.placement)) {
                Err(error) => Some(error.to_string()),
                Ok(Some(byte)) => {
                    Some(format!("byte {byte} of a buffer was written, which belongs to no output"))
                }
                Ok(None) => None,
            };
            if let Some(why) = stopped {
                failures.push(format!("{layout} {name}: {why}; kernels: {}", run.kernels()));
                continue;
            }
            for expected in &problem.expected {
                let what = &expected.name;
                let Some((_, got)) = run.outputs.iter().find(|(name, _)| name == what) else {
                    failures.push(format!("{name} {what}: the program does not compute it"));
                    continue;
                };
                let (report, failure) = judge(expected, got);
                if let Some(failure) = failure {
                    failures.push(format!("{layout} {name} {what}: {failure}; kernels: {}", run.kernels()));
                }
                let (pass, layout) = (expected.pass(), layout.name());
                let same =
                    |run: &&mut RunReport| run.pass == pass && run.variant == name && run.layout == layout;
                match runs.iter_mut().find(same) {
                    Some(run) => run.outputs.push(report),
                    None => runs.push(RunReport { pass, layout, variant: name, outputs: vec![report] }),
                }
            }
            match &first {
                None => first = Some(run.outputs),
                Some(first) if name == "repeat" => {
                    for ((what, before), (_, now)) in first.iter().zip(&run.outputs) {
                        if before.iter().zip(now).any(|(a, b)| a.to_bits() != b.to_bits()) {
                            failures.push(format!("{layout} {what}: other bits in a second run"));
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }
    (runs, failures)
}

/// Compares one output. The failure names index, values, error and bound.
pub fn judge(expected: &Expected, got: &[f32]) -> (OutputReport, Option<String>) {
    let sampled: Vec<f32>;
    let got = match &expected.sample {
        None => got,
        Some(sample) => {
            sampled = sample.iter().map(|&i| got.get(i).copied().unwrap_or(f32::NAN)).collect();
            &sampled
        }
    };
    let finite = |ratio: f64| ratio.is_finite().then_some(ratio);
    let compared =
        |bound: &[f64]| compare_as(expected.dtype, got, &expected.values, expected.where_nan(), |i| bound[i]);
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

/// One run of a problem, on outputs filled with NaN.
struct Run<'a> {
    context: &'a Context,
    problem: &'a Problem,
    layout: Layout,
    outputs: Outputs,
    kernels: Vec<String>,
}

/// A layer in one of its two states.
enum Layer {
    Training(BatchNorm),
    Frozen(FrozenBatchNorm),
}

impl Layer {
    async fn prepare_backward(
        &self,
        input: Input<'_>,
        dy: &Tensor,
        saved: Option<&Saved>,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        match (self, saved) {
            (Layer::Training(layer), Some(saved)) => layer.prepare_backward(input, dy, saved, targets).await,
            (Layer::Frozen(layer), _) => layer.prepare_backward(input, dy, targets).await,
            (Layer::Training(_), None) => unreachable!("training saves statistics"),
        }
    }
}

impl<'a> Run<'a> {
    fn new(context: &'a Context, problem: &'a Problem, layout: Layout) -> Self {
        Self { context, problem, layout, outputs: Outputs::new(), kernels: Vec::new() }
    }

    /// The kernels so far, for the report of a failure.
    fn kernels(&self) -> String {
        self.kernels.join(", ")
    }

    /// Returns the first byte that was written although it belongs to no output.
    async fn all(&mut self, placement: Placement) -> Result<Option<usize>> {
        let problem = self.problem;
        let elements = |dims: &[usize]| dims.iter().product::<usize>();
        // Batches: x, y, residual, dy, dx, its residual's, and x, dy and dx once more; or one y per step.
        let batches: Vec<usize> = match &problem.task {
            Task::Train { .. } | Task::Eval { .. } => vec![elements(&problem.dims); 10],
            Task::Sync { .. } => {
                self.outputs = sync::outputs(self.context, problem, self.layout)?;
                return Ok(None);
            }
            Task::Sequence { steps, x_eval } => {
                steps.iter().chain([x_eval]).map(|batch| elements(&batch.dims)).collect()
            }
        };
        let bytes = 4 * (batches.iter().sum::<usize>() + 4 * problem.dims[1]);
        let arena = Arena::new(self.context, placement, bytes, batches.len() + 4).await?;
        let parameter = async |values: &Option<Vec<f32>>| match values {
            Some(values) => {
                Ok::<_, Error>(Some(arena.per_channel(values, problem.parameters, Role::Read).await?))
            }
            None => Ok(None),
        };
        let (gamma, beta) = (parameter(&problem.gamma).await?, parameter(&problem.beta).await?);
        let running = RunningStatistics::upload(self.context, &problem.running).await?;
        let layer = BatchNorm::from_parts(self.context, problem.options, gamma, beta, running)?;
        match &problem.task {
            Task::Train { x, dy } => self.train(&arena, layer, x, dy.as_deref()).await?,
            Task::Eval { x, dy } => self.eval(&arena, layer.freeze(), x, dy.as_deref()).await?,
            Task::Sequence { .. } => self.sequence(&arena, layer).await?,
            Task::Sync { .. } => unreachable!("ranks have layers of their own"),
        }
        self.kernels.dedup();
        arena.disturbed().await
    }

    async fn train(
        &mut self,
        arena: &Arena<'_>,
        mut layer: BatchNorm,
        x: &[f32],
        dy: Option<&[f32]>,
    ) -> Result<()> {
        let over_x = self.problem.over_x();
        let (x, y) = self.put_forward(arena, x, over_x).await?;
        let residual = self.put_residual(arena).await?;
        let mask = match &self.problem.mask {
            Some(keep) => Some(Mask::of_positions(self.context, &x, keep).await?),
            None => None,
        };
        let input = Input { residual: residual.as_ref(), mask: mask.as_ref(), ..(&x).into() };
        let saved = match over_x {
            true => Saved::in_place(self.context, &x).await?,
            false => Saved::new(self.context, &x).await?,
        };
        let forward = layer.prepare_train_forward(input, &y, Some(&saved)).await?;
        self.kernels.extend(forward.kernels().map(str::to_owned));
        layer.submit(&forward).await?;
        self.push_batch("y", &y).await?;
        self.push_running("", layer.running().download(self.context).await?);
        let statistics = saved.download(self.context).await?;
        let column = |f: fn(&wgnorm::SavedStatistics) -> f32| statistics.iter().map(f).collect();
        self.push("save_mean", column(|s| s.mean() as f32));
        self.push("save_var", column(|s| s.var));
        self.push("save_invstd", column(|s| s.inv_std));
        self.push("recoverable", column(|s| f32::from(u8::from(s.recoverable))));
        match dy {
            Some(dy) => self.backward(arena, &Layer::Training(layer), input, dy, Some(&saved)).await,
            None => Ok(()),
        }
    }

    async fn eval(
        &mut self,
        arena: &Arena<'_>,
        layer: FrozenBatchNorm,
        values: &[f32],
        dy: Option<&[f32]>,
    ) -> Result<()> {
        let over_x = self.problem.over_x();
        let (x, y) = self.put_forward(arena, values, over_x).await?;
        let residual = self.put_residual(arena).await?;
        let forward = layer.prepare_forward(Input { residual: residual.as_ref(), ..(&x).into() }, &y).await?;
        self.kernels.extend(forward.kernels().map(str::to_owned));
        self.context.submit(&[&forward]).await?;
        self.push_batch("y", &y).await?;
        let Some(dy) = dy else { return Ok(()) };
        // Backward takes x as it was.
        let x = if over_x { self.put(arena, values, Role::Read).await? } else { x };
        let input = Input { residual: residual.as_ref(), ..(&x).into() };
        self.backward(arena, &Layer::Frozen(layer), input, dy, None).await
    }

    async fn backward(
        &mut self,
        arena: &Arena<'_>,
        layer: &Layer,
        input: Input<'_>,
        dy_values: &[f32],
        saved: Option<&Saved>,
    ) -> Result<()> {
        let problem = self.problem;
        let role = if problem.in_place { Role::Written } else { Role::Read };
        let dy = self.put(arena, dy_values, role).await?;
        let dx = if problem.in_place { dy.clone() } else { self.output(arena).await? };
        let d_residual = match input.residual {
            Some(_) => Some(self.output(arena).await?),
            None => None,
        };
        let nothing = vec![f32::NAN; problem.dims[1]];
        let per_channel = async || arena.per_channel(&nothing, problem.parameters, Role::Written).await;
        let (dgamma, dbeta) = (per_channel().await?, per_channel().await?);
        let targets = GradientTargets {
            dx: Some(&dx),
            d_residual: d_residual.as_ref(),
            dgamma: problem.gamma.as_ref().map(|_| &dgamma),
            dbeta: problem.beta.as_ref().map(|_| &dbeta),
            ..Default::default()
        };
        let backward = layer.prepare_backward(input, &dy, saved, &targets).await?;
        self.kernels.extend(backward.kernels().map(str::to_owned));
        self.context.submit(&[&backward]).await?;
        self.push_gradients("", &targets).await?;
        if !problem.expects("dweight_twice") && !problem.expects("dbias_twice") {
            return Ok(());
        }
        // Once more, added to what is there now; with and without the other gradients, which may be other kernels.
        let dy = if problem.in_place { self.put(arena, dy_values, Role::Read).await? } else { dy };
        let again_dx = match input.residual {
            Some(_) => Some(self.output(arena).await?),
            None => None,
        };
        let targets = GradientTargets { accumulation: Accumulation::Add, dx: again_dx.as_ref(), ..targets };
        let again = layer.prepare_backward(input, &dy, saved, &targets).await?;
        self.kernels.extend(again.kernels().map(str::to_owned));
        self.context.submit(&[&again]).await?;
        self.push_gradients("_twice", &targets).await
    }

    async fn sequence(&mut self, arena: &Arena<'_>, mut layer: BatchNorm) -> Result<()> {
        let problem = self.problem;
        let Task::Sequence { steps, x_eval } = &problem.task else { unreachable!("a sequence") };
        for (step, batch) in steps.iter().enumerate() {
            let x = self.rearranged(&batch.dims, &batch.values);
            let memory = layout::memory_dims(self.layout, &batch.dims);
            let x = self.context.upload_as(&memory, &x, problem.dtype).await?.with_layout(self.layout);
            let nothing = vec![f32::NAN; batch.values.len()];
            let y = arena.batch(&batch.dims, self.layout, &nothing, problem.dtype, Role::Written).await?;
            let forward = layer.prepare_train_forward(&x, &y, None).await?;
            self.kernels.extend(forward.kernels().map(str::to_owned));
            layer.submit(&forward).await?;
            self.push_running(&format!("_{step}"), layer.running().download(self.context).await?);
        }
        let x = self.rearranged(&x_eval.dims, &x_eval.values);
        let x = arena.batch(&x_eval.dims, self.layout, &x, problem.dtype, Role::Read).await?;
        let y = layer.freeze().forward(&x).await?;
        let y = self.context.download(&y).await?;
        self.push("y_eval", layout::rearranged(&y, &x_eval.dims, self.layout, problem.stored));
        Ok(())
    }

    fn rearranged(&self, dims: &[usize], values: &[f32]) -> Vec<f32> {
        layout::rearranged(values, dims, self.problem.stored, self.layout)
    }

    /// A batch with values in stored order.
    async fn put(&self, arena: &Arena<'_>, values: &[f32], role: Role) -> Result<Tensor> {
        let dims = &self.problem.dims;
        arena.batch(dims, self.layout, &self.rearranged(dims, values), self.problem.dtype, role).await
    }

    /// A batch of NaN.
    async fn output(&self, arena: &Arena<'_>) -> Result<Tensor> {
        self.put(arena, &vec![f32::NAN; self.problem.dims.iter().product()], Role::Written).await
    }

    /// x and y, which may be one.
    async fn put_forward(&self, arena: &Arena<'_>, x: &[f32], over_x: bool) -> Result<(Tensor, Tensor)> {
        if over_x {
            let x = self.put(arena, x, Role::Written).await?;
            return Ok((x.clone(), x));
        }
        Ok((self.put(arena, x, Role::Read).await?, self.output(arena).await?))
    }

    async fn put_residual(&self, arena: &Arena<'_>) -> Result<Option<Tensor>> {
        match &self.problem.residual {
            Some(residual) => Ok(Some(self.put(arena, residual, Role::Read).await?)),
            None => Ok(None),
        }
    }

    fn push(&mut self, name: &str, values: Vec<f32>) {
        self.outputs.push((name.to_owned(), values));
    }

    async fn push_batch(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let values = self.context.download(tensor).await?;
        let problem = self.problem;
        self.push(name, layout::rearranged(&values, &problem.dims, self.layout, problem.stored));
        Ok(())
    }

    async fn push_gradients(&mut self, suffix: &str, targets: &GradientTargets<'_>) -> Result<()> {
        for (name, tensor) in [("dx", targets.dx), ("dresidual", targets.d_residual)] {
            if let Some(tensor) = tensor {
                self.push_batch(&format!("{name}{suffix}"), tensor).await?;
            }
        }
        for (name, tensor) in [("dweight", targets.dgamma), ("dbias", targets.dbeta)] {
            if let Some(tensor) = tensor {
                self.push(&format!("{name}{suffix}"), self.context.download(tensor).await?);
            }
        }
        Ok(())
    }

    fn push_running(&mut self, suffix: &str, running: RunningValues) {
        self.push(&format!("running_mean{suffix}"), running.mean);
        self.push(&format!("running_var{suffix}"), running.var);
    }
}
