//! The passes of a problem prepared on a context that notes what they would run, over tensors that take no memory.

use super::{Layer, Parameters, Passes, Spec, Statistics};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::shape::Layout;
use crate::engine::buffer::Buffer;
use crate::engine::context::Context;

use crate::engine::rehearsal::Rehearsal;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::{GradientTargets, SecondTargets, Tangents, Train};
use crate::plan::{Op, Traffic};
use crate::statistics::running::RunningValues;

/// What was rehearsed.
pub(crate) struct Rehearsed {
    /// Operations of the forward pass; what follows them is of the backward pass.
    pub forward: usize,
    /// What the forward and the backward pass do and move.
    pub passes: [(Op, Traffic); 2],
    /// What the tensors of the problem are called.
    pub names: Vec<(&'static str, Buffer)>,
}

/// Prepares the passes of a problem on a context that notes them.
pub(crate) async fn rehearse(context: &Context, spec: &Spec) -> Result<Rehearsed> {
    spec.check()?;
    if !matches!(spec.statistics, Statistics::Own | Statistics::Given | Statistics::Renorm(..)) {
        let reason = format!("{:?} is composed of several passes; warm up its parts", spec.statistics);
        return Err(Error::Spec { reason });
    }
    let mut dims = spec.shape.clone();
    if spec.layout == Layout::ChannelsLast {
        dims[1..].rotate_left(1);
    }
    let phantom = || Tensor::phantom(context, &dims, spec.dtype, spec.layout);
    let shape = spec.parameter_shape();
    let zeros = async |is: bool, shape: &[usize]| match is {
        true => context.zeros_as(shape, spec.parameters).await.map(Some),
        false => Ok(None),
    };
    let channels = spec.shape.get(1).copied().unwrap_or(1);
    let gamma = zeros(spec.affine.has_gamma(), &shape).await?;
    let beta = zeros(spec.affine.has_beta(), &shape).await?;
    let alpha = zeros(spec.alpha_shape().is_some(), &spec.alpha_shape().unwrap_or_default()).await?;
    let shift = zeros(spec.shift_shape().is_some(), &spec.shift_shape().unwrap_or_default()).await?;
    let parameters = Parameters {
        gamma: gamma.clone(),
        beta: beta.clone(),
        alpha: alpha.clone(),
        shift: shift.clone(),
        running: RunningValues::initial(channels),
        directions: spec.directions_of(|_, len| vec![0.0; len]),
    };
    let mut layer = Layer::new(context, spec, parameters).await?;
    let (x, dy) = (phantom()?, phantom()?);
    let residual = if spec.residual { Some(phantom()?) } else { None };
    let gate = if spec.gate.is_some() { Some(phantom()?) } else { None };
    let mask = match spec.mask {
        Some(_) => {
            let positions = spec.positions().count() as usize;
            Some(spec.mask_of(context, &x, &vec![true; positions]).await?)
        }
        None => None,
    };
    let backward = spec.passes != Passes::Forward;
    let saves = backward || spec.norm.tracks();
    let over_x = spec.writes_over_x(saves);
    let y = if over_x { x.clone() } else { phantom()? };
    let sum = match spec.sum {
        true => {
            let addend = phantom()?;
            Some((addend.clone(), if spec.in_place { addend } else { phantom()? }))
        }
        false => None,
    };
    let room = if over_x { layer.room_in_place(&x).await? } else { layer.room_for(&x).await? };
    let input = Input::from(&x).with_residual(residual.as_ref()).masked(mask.as_ref());
    let input = match (&gate, spec.gate) {
        (Some(gate), Some(order)) => input.gated(gate, order),
        _ => input,
    };
    let saved = saves.then_some(&room);
    let forward = match &sum {
        Some((addend, sum)) => input.plus(addend, sum),
        None => input,
    };
    let mut names = Names(Vec::new());
    names.add("x", Some(&x));
    names.add("residual", residual.as_ref());
    names.add("gate", gate.as_ref());
    names.add("addend", sum.as_ref().map(|(addend, _)| addend));
    names.add("sum", sum.as_ref().map(|(_, sum)| sum));
    names.add("y", Some(&y));
    names.add("gamma", gamma.as_ref());
    names.add("beta", beta.as_ref());
    names.add("directions", layer.directions_memory());
    if let Some(int8) = spec.int8 {
        let rows = spec.elements() / spec.shape.last().copied().unwrap_or(1).max(1);
        let (y, scales) =
            (Tensor::phantom(context, &dims, DType::I8, spec.layout)?, context.zeros(&[rows]).await?);
        let int8 = int8.into_scales(&scales);
        names.add("y", Some(&y));
        names.add("scales", Some(&scales));
        let pass = layer.prepare_infer_int8(forward, &y, int8).await?;
        let forward = context.rehearsal().map_or(0, Rehearsal::count);
        return Ok(Rehearsed { forward, passes: [(pass.op(), pass.traffic()); 2], names: names.0 });
    }
    let pass = layer.prepare_train_forward(forward, &y, saved).await?;
    let mut passes = [(pass.op(), pass.traffic()); 2];
    let forward = context.rehearsal().map_or(0, Rehearsal::count);
    if !backward {
        return Ok(Rehearsed { forward, passes, names: names.0 });
    }
    if spec.has_second() {
        let x_tangent = phantom()?;
        let (gamma_tangent, beta_tangent) =
            (zeros(gamma.is_some(), &shape).await?, zeros(beta.is_some(), &shape).await?);
        let (dgamma, dbeta) = (zeros(gamma.is_some(), &shape).await?, zeros(beta.is_some(), &shape).await?);
        let (ddy, dx) = (phantom()?, phantom()?);
        names.add("dy", Some(&dy));
        names.add("x_tangent", Some(&x_tangent));
        names.add("gamma_tangent", gamma_tangent.as_ref());
        names.add("beta_tangent", beta_tangent.as_ref());
        names.add("ddy", Some(&ddy));
        names.add("dx", Some(&dx));
        names.add("dgamma", dgamma.as_ref());
        names.add("dbeta", dbeta.as_ref());
        let tangents = Tangents::of_x(&x_tangent).gamma(gamma_tangent.as_ref()).beta(beta_tangent.as_ref());
        let targets = SecondTargets::new(&ddy, &dx).dgamma(dgamma.as_ref()).dbeta(dbeta.as_ref());
        let pass = layer.prepare_double_backward(input, &dy, &room, &tangents, &targets).await?;
        passes[1] = (pass.op(), pass.traffic());
        return Ok(Rehearsed { forward, passes, names: names.0 });
    }
    let activated = spec.activation != Activation::None || mask.is_some();
    let d_sum = if spec.sum { Some(phantom()?) } else { None };
    let dx = match &d_sum {
        // Where an activation needs the residual, d_sum is read after dx has been written.
        Some(d_sum) if spec.in_place && !(activated && spec.residual) => d_sum.clone(),
        _ if spec.in_place => dy.clone(),
        _ => phantom()?,
    };
    let d_residual = if spec.residual && activated { Some(phantom()?) } else { None };
    let d_gate = if spec.gate.is_some() { Some(phantom()?) } else { None };
    let like = async |parameter: Option<Tensor>| match parameter {
        Some(parameter) => context.zeros_like(&parameter).await.map(Some),
        None => Ok(None),
    };
    let (dgamma, dbeta) = (like(gamma).await?, like(beta).await?);
    let (dalpha, dshift) = (like(alpha).await?, like(shift).await?);
    let targets = GradientTargets::default()
        .dx(&dx)
        .d_residual(d_residual.as_ref())
        .d_gate(d_gate.as_ref())
        .dgamma(dgamma.as_ref())
        .dbeta(dbeta.as_ref())
        .dalpha(dalpha.as_ref())
        .dshift(dshift.as_ref());
    let x = sum.as_ref().map_or(&x, |(_, sum)| sum);
    let input = Input { x, ..input }.with_d_sum(d_sum.as_ref());
    names.add("dy", Some(&dy));
    names.add("d_sum", d_sum.as_ref());
    names.add("dx", Some(&dx));
    names.add("d_residual", d_residual.as_ref());
    names.add("d_gate", d_gate.as_ref());
    names.add("dgamma", dgamma.as_ref());
    names.add("dbeta", dbeta.as_ref());
    let pass = layer.prepare_backward(input, &dy, &room, &targets).await?;
    passes[1] = (pass.op(), pass.traffic());
    Ok(Rehearsed { forward, passes, names: names.0 })
}

/// What tensors are called; one that is written over another has the name of the first.
struct Names(Vec<(&'static str, Buffer)>);

impl Names {
    fn add(&mut self, name: &'static str, tensor: Option<&Tensor>) {
        if let Some(tensor) = tensor.filter(|tensor| self.0.iter().all(|(_, known)| known != tensor.memory()))
        {
            self.0.push((name, tensor.memory().clone()));
        }
    }
}
