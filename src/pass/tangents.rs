//! What derivatives of the passes are given and give: tangents of x and the parameters, and gradients of gradients.

use super::input::Input;
use super::spec::Spec;
use super::targets::{Accumulation, GradientTargets};
use super::tensors::Tensors;
use super::{Pass, Statistics};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::setters::setters;
use crate::engine::prepared::Prepared;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::plan::Op;

/// In which direction x and the parameters change: what forward mode (`jvp`) takes. For gradients of gradients (`double_backward`) these are the gradients, by dx, dgamma
/// and dbeta, of a scalar that is made of them, which is the same thing, because second derivatives are symmetric.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Tangents<'a> {
    /// Of x (by dx), like x.
    pub x: &'a Tensor,
    /// Of gamma (by dgamma), of its shape and type; without, 0.
    pub gamma: Option<&'a Tensor>,
    /// Of beta (by dbeta), of its shape and type; without, 0.
    pub beta: Option<&'a Tensor>,
}

impl<'a> Tangents<'a> {
    /// That of x alone.
    pub const fn of_x(x: &'a Tensor) -> Self {
        Self { x, gamma: None, beta: None }
    }
}

setters!(impl<'a> Tangents<'a> { gamma: &'a Tensor, beta: &'a Tensor });

/// Where gradients of gradients go.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SecondTargets<'a> {
    /// By dy, like x.
    pub ddy: &'a Tensor,
    /// By x, like x.
    pub dx: &'a Tensor,
    /// By gamma, of its shape; of f32 or of the type of x.
    pub dgamma: Option<&'a Tensor>,
    /// By beta, of its shape and the type of dgamma: 0 without an activation.
    pub dbeta: Option<&'a Tensor>,
    /// Whether dgamma and dbeta are written or added to.
    pub accumulation: Accumulation,
}

impl<'a> SecondTargets<'a> {
    /// Those by dy and x.
    pub const fn new(ddy: &'a Tensor, dx: &'a Tensor) -> Self {
        Self { ddy, dx, dgamma: None, dbeta: None, accumulation: Accumulation::Write }
    }

    /// The same, with those by parameters written or added.
    #[must_use]
    pub const fn accumulation(self, accumulation: Accumulation) -> Self {
        Self { accumulation, ..self }
    }

    fn of_parameters(&self) -> GradientTargets<'a> {
        let Self { dgamma, dbeta, accumulation, .. } = *self;
        GradientTargets { dgamma, dbeta, accumulation, ..GradientTargets::default() }
    }
}

setters!(impl<'a> SecondTargets<'a> { dgamma: &'a Tensor, dbeta: &'a Tensor });

/// Gradients of gradients, of an operation that allocates them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SecondGradients {
    /// By dy, like x.
    pub ddy: Tensor,
    /// By x, like x.
    pub dx: Tensor,
    /// By gamma, if the layer has one.
    pub dgamma: Option<Tensor>,
    /// By beta, if the layer has one: 0 without an activation.
    pub dbeta: Option<Tensor>,
}

impl SecondGradients {
    /// These tensors as targets.
    pub fn targets(&self) -> SecondTargets<'_> {
        let Self { ddy, dx, dgamma, dbeta } = self;
        SecondTargets::new(ddy, dx).dgamma(dgamma.as_ref()).dbeta(dbeta.as_ref())
    }
}

impl<'a> Spec<'a> {
    /// Requires an input of x alone.
    pub(crate) fn check_alone(&self, input: Input<'_>) -> Result<()> {
        let why = "derivatives of its passes are those of norm and activation alone";
        let extras = [
            ("residual", input.residual.is_some()),
            ("gate", input.gate.is_some()),
            ("mask", input.mask.is_some()),
            ("sum", input.sum.is_some() || input.d_sum.is_some()),
            ("moments", input.moments.is_some()),
        ];
        match extras.into_iter().find(|(_, is)| *is) {
            Some((what, _)) => Err(Error::Unsupported { layer: self.layer, what, why }),
            None => Ok(()),
        }
    }

    /// Requires that, and tangents that fit it.
    fn check_tangents(&self, input: Input<'_>, tangents: &Tangents<'_>) -> Result<()> {
        self.check_alone(input)?;
        self.check_like(Slot::XTangent.name(), tangents.x, input.x)?;
        tangents.x.check_device(Slot::XTangent.name(), self.context)?;
        let dtype = self.parameters.gamma.or(self.parameters.beta).map_or(DType::F32, Tensor::dtype);
        for (slot, tangent, parameter, of) in [
            (Slot::GammaTangent, tangents.gamma, Slot::Gamma, self.parameters.gamma),
            (Slot::BetaTangent, tangents.beta, Slot::Beta, self.parameters.beta),
        ] {
            let Some(tangent) = tangent else { continue };
            if of.is_none() {
                return Err(Error::NoParameter { gradient: slot.name(), parameter: parameter.name() });
            }
            tangent.check_device(slot.name(), self.context)?;
            tangent.check_shape(slot.name(), self.shape)?;
            tangent.check_contiguous(slot.name())?;
            tangent.check_dtype(slot.name(), dtype)?;
        }
        Ok(())
    }

    /// The tensors that are read.
    fn read_by_derivatives(&self, input: Input<'a>, tangents: &Tangents<'a>) -> Tensors<'a> {
        let Tangents { x, gamma, beta } = *tangents;
        let read = Tensors::NONE.with(Slot::X, input.x).with(Slot::XTangent, x);
        read.with(Slot::GammaTangent, gamma).with(Slot::BetaTangent, beta)
    }

    /// Prepares the tangent of y.
    pub(crate) async fn prepare_jvp(
        self,
        input: Input<'a>,
        tangents: &Tangents<'a>,
        y_tangent: &'a Tensor,
        statistics: Statistics<'a>,
    ) -> Result<Prepared> {
        self.check_tangents(input, tangents)?;
        self.check_like(Slot::YTangent.name(), y_tangent, input.x)?;
        if self.cut.is_empty() {
            return Ok(Prepared::nothing(self.context, Op::Tangent));
        }
        let tensors = self.read_by_derivatives(input, tangents).with(Slot::YTangent, y_tangent);
        self.derivatives(Op::Tangent, tensors, statistics, Accumulation::Write).prepare_derivatives().await
    }

    /// Prepares gradients of gradients.
    pub(crate) async fn prepare_double_backward(
        self,
        (input, dy): (Input<'a>, &'a Tensor),
        tangents: &Tangents<'a>,
        targets: &SecondTargets<'a>,
        statistics: Statistics<'a>,
    ) -> Result<Prepared> {
        self.check_tangents(input, tangents)?;
        if let Activation::Custom(custom) = self.activation
            && custom.functions().second_derivative.is_none()
        {
            let why = "it has no second derivative; make it with ActivationFunctions::second_derivative";
            return Err(Error::Unsupported { layer: self.layer, what: "activation", why });
        }
        for (what, tensor) in [("dy", dy), (Slot::YTangent.name(), targets.ddy), ("dx", targets.dx)] {
            self.check_like(what, tensor, input.x)?;
        }
        let of_parameters = targets.of_parameters();
        self.check_parameter_targets(input.x.dtype(), &of_parameters)?;
        if self.cut.is_empty() {
            return self.prepare_empty_sums(Op::SecondBackward, input.x.dtype(), &of_parameters).await;
        }
        let outputs = of_parameters.tensors().with(Slot::YTangent, targets.ddy).with(Slot::Dx, targets.dx);
        let tensors = self.read_by_derivatives(input, tangents).with(Slot::Dy, dy).and(outputs);
        let pass = self.derivatives(Op::SecondBackward, tensors, statistics, targets.accumulation);
        pass.prepare_derivatives().await
    }

    /// A pass with these tensors; gamma and beta are those that are saved beside the statistics of channels, else the layer's.
    fn derivatives(
        self,
        op: Op,
        tensors: Tensors<'a>,
        statistics: Statistics<'a>,
        accumulation: Accumulation,
    ) -> Pass<'a> {
        let tensors = match statistics {
            Statistics::Batch(_) => tensors,
            _ => tensors.and(self.parameters.tensors()),
        };
        Pass { accumulation, ..Pass::new(op, self, statistics, tensors) }
    }

    /// Tensors for gradients of gradients.
    pub(crate) async fn allocate_second(&self, x: &Tensor) -> Result<SecondGradients> {
        let like = async |parameter: Option<&Tensor>| match parameter {
            Some(parameter) => {
                self.context.zeros_as(parameter.shape().dims(), parameter.dtype()).await.map(Some)
            }
            None => Ok(None),
        };
        Ok(SecondGradients {
            ddy: self.context.zeros_like(x).await?,
            dx: self.context.zeros_like(x).await?,
            dgamma: like(self.parameters.gamma).await?,
            dbeta: like(self.parameters.beta).await?,
        })
    }
}
