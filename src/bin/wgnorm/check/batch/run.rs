//! Batch norm on the GPU: training, inference, sequences of both.

use wgnorm::{
    BatchNorm, Context, FrozenBatchNorm, Input, Mask, Result, RunningStatistics, Saved, SavedStatistics,
};

use super::{Task, Work, sync};
use crate::check::arena::Role;
use crate::check::case::{Batch, Problem};
use crate::check::run::{Run, Upstream};
use crate::layout;

impl Work {
    /// Numbers of elements of all tensors that are placed.
    pub fn tensors(&self, problem: &Problem) -> Vec<usize> {
        let elements = |dims: &[usize]| dims.iter().product::<usize>();
        let parameters = vec![problem.dims[1]; 4];
        let batches = match &self.task {
            // x, y, residual, dy, dx, its residual's, and x, dy and dx once more.
            Task::Train { .. } | Task::Eval { .. } => vec![problem.elements(); 10],
            Task::Sequence { steps, x_eval } => {
                steps.iter().chain([x_eval]).map(|batch| elements(&batch.dims)).collect()
            }
            Task::Sync { .. } => Vec::new(),
        };
        [batches, parameters].concat()
    }

    /// Whether y is written over x.
    fn is_over_x(&self, problem: &Problem) -> bool {
        let needs_inverse = matches!(self.task, Task::Train { .. });
        problem.in_place && (!needs_inverse || self.options.activation.is_invertible())
    }
}

pub async fn run(run: &mut Run<'_>, work: &Work) -> Result<()> {
    if let Task::Sync { shards } = &work.task {
        run.outputs = sync::outputs(run.context, run.problem, work, run.layout, shards)?;
        return Ok(());
    }
    let [gamma, beta] = run.put_parameters(&run.problem.dims[1..2]).await?;
    let running = RunningStatistics::upload(run.context, &work.running).await?;
    let layer = BatchNorm::from_parts(run.context, work.options, gamma, beta, running)?;
    match &work.task {
        Task::Train { x, dy } => train(run, work, layer, x, dy.as_deref()).await,
        Task::Eval { x, dy } => eval(run, work, layer.freeze(), x, dy.as_deref()).await,
        Task::Sequence { steps, x_eval } => sequence(run, layer, steps, x_eval).await,
        Task::Sync { .. } => unreachable!("ranks have layers of their own"),
    }
}

async fn train(
    run: &mut Run<'_>,
    work: &Work,
    mut layer: BatchNorm,
    x: &[f32],
    dy: Option<&[f32]>,
) -> Result<()> {
    let over_x = work.is_over_x(run.problem);
    let (x, residual, y) = run.put_forward(x, over_x).await?;
    let mask = match &work.mask {
        Some(keep) => Some(Mask::of_positions(run.context, &x, keep).await?),
        None => None,
    };
    let input = Input { residual: residual.as_ref(), mask: mask.as_ref(), ..(&x).into() };
    let saved = match over_x {
        true => Saved::in_place(run.context, &x).await?,
        false => Saved::new(run.context, &x).await?,
    };
    let forward = layer.prepare_train_forward(input, &y, Some(&saved)).await?;
    run.took(forward.kernels());
    layer.submit(&forward).await?;
    run.push_batch("y", &y).await?;
    run.push_running("", layer.running().download(run.context).await?);
    let statistics = saved.download(run.context).await?;
    let column = |f: fn(&SavedStatistics) -> f32| statistics.iter().map(f).collect();
    run.push("save_mean", column(|s| s.mean() as f32));
    run.push("save_var", column(|s| s.var));
    run.push("save_invstd", column(|s| s.inv_std));
    run.push("recoverable", column(|s| f32::from(u8::from(s.recoverable))));
    let Some(dy) = dy else { return Ok(()) };
    let channels = &run.problem.dims[1..2];
    run.backward(Upstream { dy, d_sum: None }, channels, async |dy, _, targets| {
        layer.prepare_backward(input, dy, &saved, targets).await
    })
    .await
}

async fn eval(
    run: &mut Run<'_>,
    work: &Work,
    layer: FrozenBatchNorm,
    values: &[f32],
    dy: Option<&[f32]>,
) -> Result<()> {
    let over_x = work.is_over_x(run.problem);
    let (x, residual, y) = run.put_forward(values, over_x).await?;
    let forward = layer.prepare_forward(Input { residual: residual.as_ref(), ..(&x).into() }, &y).await?;
    run.submit(&forward).await?;
    run.push_batch("y", &y).await?;
    let Some(dy) = dy else { return Ok(()) };
    // Backward takes x as it was.
    let x = if over_x { run.put(values, Role::Read).await? } else { x };
    let input = Input { residual: residual.as_ref(), ..(&x).into() };
    let channels = &run.problem.dims[1..2];
    run.backward(Upstream { dy, d_sum: None }, channels, async |dy, _, targets| {
        layer.prepare_backward(input, dy, targets).await
    })
    .await
}

async fn sequence(run: &mut Run<'_>, mut layer: BatchNorm, steps: &[Batch], x_eval: &Batch) -> Result<()> {
    let (context, problem, layout): (&Context, _, _) = (run.context, run.problem, run.layout);
    for (step, batch) in steps.iter().enumerate() {
        let x = run.rearranged(&batch.dims, &batch.values);
        let memory = layout::memory_dims(layout, &batch.dims);
        let x = context.upload_as(&memory, &x, problem.dtype).await?.with_layout(layout);
        let nothing = vec![f32::NAN; batch.values.len()];
        let y = run.arena.batch(&batch.dims, layout, &nothing, problem.dtype, Role::Written).await?;
        let forward = layer.prepare_train_forward(&x, &y, None).await?;
        run.took(forward.kernels());
        layer.submit(&forward).await?;
        run.push_running(&format!("_{step}"), layer.running().download(context).await?);
    }
    let x = run.rearranged(&x_eval.dims, &x_eval.values);
    let x = run.arena.batch(&x_eval.dims, layout, &x, problem.dtype, Role::Read).await?;
    let y = layer.freeze().forward(&x).await?;
    let y = context.download(&y).await?;
    run.push("y_eval", layout::rearranged(&y, &x_eval.dims, layout, problem.stored));
    Ok(())
}
