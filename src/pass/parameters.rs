//! The parameters of a layer.

use super::tensors::Tensors;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::engine::context::Context;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;

/// Which affine parameters a layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affine {
    /// gamma and beta.
    Both,
    /// gamma alone.
    Weight,
    /// beta alone.
    Bias,
    /// Neither: y is x̂.
    None,
}

impl Affine {
    /// Which there are.
    pub(crate) const fn of(gamma: bool, beta: bool) -> Self {
        match (gamma, beta) {
            (true, true) => Affine::Both,
            (true, false) => Affine::Weight,
            (false, true) => Affine::Bias,
            (false, false) => Affine::None,
        }
    }

    /// Whether there is a gamma.
    pub const fn has_gamma(self) -> bool {
        matches!(self, Affine::Both | Affine::Weight)
    }

    /// Whether there is a beta.
    pub const fn has_beta(self) -> bool {
        matches!(self, Affine::Both | Affine::Bias)
    }
}

/// Parameters that a layer has, on the GPU, where an optimizer updates them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owned {
    pub gamma: Option<Tensor>,
    pub beta: Option<Tensor>,
    /// Of a curve, what GraphNorm subtracts of the mean, or the logits of switchable norm's weights of means; of variances is shift.
    pub alpha: Option<Tensor>,
    pub shift: Option<Tensor>,
}

/// The parameters that a pass takes: those of the layer, or others that come with the input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parameters<'a> {
    pub gamma: Option<&'a Tensor>,
    pub beta: Option<&'a Tensor>,
    pub alpha: Option<&'a Tensor>,
    pub shift: Option<&'a Tensor>,
}

impl Owned {
    pub fn get(&self) -> Parameters<'_> {
        let Self { gamma, beta, alpha, shift } = self;
        Parameters {
            gamma: gamma.as_ref(),
            beta: beta.as_ref(),
            alpha: alpha.as_ref(),
            shift: shift.as_ref(),
        }
    }

    /// Neutral gamma and beta of a shape, as far as they are wanted.
    pub async fn affine(context: &Context, affine: Affine, shape: Shape, gamma: f32) -> Result<Self> {
        context.check_size("gamma", shape.len(), 4)?;
        let of = async |wanted: bool, value: f32| -> Result<Option<Tensor>> {
            if !wanted {
                return Ok(None);
            }
            let tensor = context.zeros(shape.dims()).await?;
            if value != 0.0 {
                context.fill(tensor.memory(), 0..tensor.byte_len(), value.to_bits()).await?;
            }
            Ok(Some(tensor))
        };
        let (gamma, beta) = (of(affine.has_gamma(), gamma).await?, of(affine.has_beta(), 0.0).await?);
        Ok(Self { gamma, beta, ..Self::default() })
    }
}

impl<'a> Parameters<'a> {
    pub fn slots(&self) -> [(Slot, Option<&'a Tensor>); 4] {
        let Self { gamma, beta, alpha, shift } = *self;
        [(Slot::Alpha, alpha), (Slot::Shift, shift), (Slot::Gamma, gamma), (Slot::Beta, beta)]
    }

    /// By their slots.
    pub(super) fn tensors(&self) -> Tensors<'a> {
        self.slots().into_iter().fold(Tensors::NONE, |all, (slot, tensor)| all.with(slot, tensor))
    }

    fn present(&self) -> impl Iterator<Item = (Slot, &'a Tensor)> {
        self.slots().into_iter().filter_map(|(slot, tensor)| Some((slot, tensor?)))
    }

    /// The parameter that a gradient is of.
    pub fn of_gradient(&self, gradient: Slot) -> (Slot, Option<&'a Tensor>) {
        match gradient {
            Slot::Dgamma => (Slot::Gamma, self.gamma),
            Slot::Dbeta => (Slot::Beta, self.beta),
            Slot::Dalpha => (Slot::Alpha, self.alpha),
            _ => (Slot::Shift, self.shift),
        }
    }

    /// Which affine parameters there are.
    pub fn affine(&self) -> Affine {
        Affine::of(self.gamma.is_some(), self.beta.is_some())
    }

    /// Requires the context's device, one type, gamma and beta of a shape, and one number for each of the others.
    pub fn check(&self, context: &Context, shape: Shape) -> Result<()> {
        self.check_with(context, shape, [Shape::per_channel(1); 2])
    }

    /// The same with an alpha and a shift of these shapes.
    pub fn check_with(&self, context: &Context, shape: Shape, [alpha, shift]: [Shape; 2]) -> Result<()> {
        for (slot, parameter) in self.present() {
            let what = slot.name();
            parameter.check_device(what, context)?;
            let expected = match slot {
                Slot::Alpha => alpha,
                Slot::Shift => shift,
                _ => shape,
            };
            parameter.check_shape(what, expected)?;
            parameter.check_contiguous(what)?;
        }
        let first = self.present().next().map_or(DType::F32, |(_, first)| first.dtype());
        self.present().try_for_each(|(slot, parameter)| parameter.check_dtype(slot.name(), first))
    }

    /// Requires that they go with an x of a type: f32 with all, 16 bits with their own.
    pub fn check_beside(&self, dtype: DType) -> Result<()> {
        let mut narrow = self.present().filter(|(_, parameter)| parameter.dtype() != DType::F32);
        narrow.try_for_each(|(slot, parameter)| parameter.check_dtype(slot.name(), dtype))
    }
}
