//! A curve on the GPU.

use wgnorm::{
    Accumulation, Curve, CurveKind, CurveTargets, Derf, DynamicCurve, DynamicTanh, Input, Result, Tensor,
};

use super::super::arena::Role;
use super::super::run::Run;
use super::{Work, is_shifted};

pub async fn run(run: &mut Run<'_>, work: &Work) -> Result<()> {
    let (context, options) = (run.context, work.options);
    let [gamma, beta] = run.put_parameters(&run.problem.dims[1..2]).await?;
    let alpha = parameter(run, &[work.alpha], Role::Read).await?;
    match work.curve {
        Curve::Tanh => {
            passes(run, work, &DynamicTanh::from_parts(context, options, alpha, gamma, beta)?).await
        }
        _ => {
            let shift = parameter(run, &[work.shift], Role::Read).await?;
            passes(run, work, &Derf::from_parts(context, options, alpha, shift, gamma, beta)?).await
        }
    }
}

async fn parameter(run: &Run<'_>, values: &[f32], role: Role) -> Result<Tensor> {
    run.arena.parameter(&[values.len()], values, run.problem.parameters, role).await
}

/// Both passes; then the backward one again, whose gradients of parameters are added to what is there.
async fn passes<K: CurveKind>(run: &mut Run<'_>, work: &Work, layer: &DynamicCurve<K>) -> Result<()> {
    let problem = run.problem;
    let (x, residual, y) = run.put_forward(&work.x, problem.in_place).await?;
    let forward = layer.prepare_forward(Input { residual: residual.as_ref(), ..(&x).into() }, &y).await?;
    run.submit(&forward).await?;
    run.push_batch("y", &y).await?;

    // Backward takes x as it was.
    let x = if problem.in_place { run.put(&work.x, Role::Read).await? } else { x };
    let input = Input { residual: residual.as_ref(), ..(&x).into() };
    let role = if problem.in_place { Role::Written } else { Role::Read };
    let dy = run.put(&work.dy, role).await?;
    let dx = if problem.in_place { dy.clone() } else { run.output().await? };
    let d_residual = match &residual {
        Some(_) => Some(run.output().await?),
        None => None,
    };
    let of_channels = vec![f32::NAN; problem.dims[1]];
    let dgamma = parameter(run, &of_channels, Role::Written).await?;
    let dbeta = parameter(run, &of_channels, Role::Written).await?;
    let dalpha = parameter(run, &[f32::NAN], Role::Written).await?;
    let dshift = parameter(run, &[f32::NAN], Role::Written).await?;
    let targets = CurveTargets {
        dx: Some(&dx),
        d_residual: d_residual.as_ref(),
        dgamma: problem.gamma.as_ref().map(|_| &dgamma),
        dbeta: problem.beta.as_ref().map(|_| &dbeta),
        dalpha: Some(&dalpha),
        dshift: is_shifted(work.curve).then_some(&dshift),
        ..Default::default()
    };
    let backward = layer.prepare_backward(input, &dy, &targets).await?;
    run.submit(&backward).await?;
    push_gradients(run, "", &targets).await?;

    let dy = if problem.in_place { run.put(&work.dy, Role::Read).await? } else { dy };
    let dx = run.output().await?;
    let again = CurveTargets { accumulation: Accumulation::Add, dx: Some(&dx), d_residual: None, ..targets };
    let backward = layer.prepare_backward(input, &dy, &again).await?;
    run.submit(&backward).await?;
    push_gradients(run, "_twice", &again).await
}

async fn push_gradients(run: &mut Run<'_>, suffix: &str, targets: &CurveTargets<'_>) -> Result<()> {
    for (name, tensor) in [("dx", targets.dx), ("dresidual", targets.d_residual)] {
        if let Some(tensor) = tensor {
            run.push_batch(&format!("{name}{suffix}"), tensor).await?;
        }
    }
    for (name, tensor) in [
        ("dweight", targets.dgamma),
        ("dbias", targets.dbeta),
        ("dalpha", targets.dalpha),
        ("dshift", targets.dshift),
    ] {
        if let Some(tensor) = tensor {
            let values = run.context.download(tensor).await?;
            run.push(&format!("{name}{suffix}"), values);
        }
    }
    Ok(())
}
