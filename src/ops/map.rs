//! Map: one pass over memory, element by element, with the statistics of each slice from a fold
//! (shaders/map/).

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Shape;
use crate::engine::bindings::check_apart;
use crate::engine::build::{Build, Scratch};
use crate::engine::context::Context;
use crate::engine::params::Axis;
use crate::engine::prepared::Prepared;
use crate::engine::shader::{Kernel, Pointwise, StatisticsFrom};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::windows::check_binding;
use crate::plan::{Alignment, Op, Records, Traffic, Walk};

/// Dispatches y = act(x̂·gamma + beta + residual).
pub(crate) fn forward(build: &mut Build<'_>, statistics: StatisticsFrom) {
    build.dispatch(Kernel::MapForward(statistics));
}

/// The same through batch statistics, from the totals of slices if they have been folded.
pub(crate) fn forward_of_batch(build: &mut Build<'_>, total: Option<Scratch>) {
    let pointwise = build.pointwise;
    build.dispatch_of(Kernel::MapForward(StatisticsFrom::Batch), pointwise, None, total);
}

/// As [`forward`], with x read from the tensor of another slot, if that is given.
pub(crate) fn forward_of(build: &mut Build<'_>, statistics: StatisticsFrom, x: Option<(Slot, Slot)>) {
    let pointwise = build.pointwise;
    build.dispatch_with(Kernel::MapForward(statistics), pointwise, x);
}

/// Dispatches y from partial moments of slices that lie as `records` says, with x read from the tensor of another slot, if that is given.
pub(crate) fn forward_of_slices(build: &mut Build<'_>, records: Records, x: Option<(Slot, Slot)>) {
    build.dispatch_from(Kernel::MapForward(StatisticsFrom::Slices), x, records);
}

/// Dispatches y as int8 by the scale of each row, with x read from the tensor of another slot, if that is given.
pub(crate) fn int8_of_rows(build: &mut Build<'_>, x: Option<(Slot, Slot)>) {
    let pointwise = build.pointwise;
    build.dispatch_with(Kernel::MapInt8(StatisticsFrom::Slices), pointwise, x);
}

/// Dispatches dx through the statistics of slices that are not channels, from their means.
pub(crate) fn backward_of_means(build: &mut Build<'_>) {
    build.dispatch(Kernel::MapBackward { statistics: StatisticsFrom::Means, dx: true });
}

/// Dispatches dx through batch statistics, with dgamma and dbeta from the same sums, from the totals of slices if they have been folded.
pub(crate) fn backward(build: &mut Build<'_>, total: Option<Scratch>) {
    let kernel = Kernel::MapBackward { statistics: StatisticsFrom::Gradients, dx: true };
    let pointwise = build.pointwise;
    build.dispatch_of(kernel, pointwise, None, total);
}

/// As [`backward`], with dz read from where the reduction has left it, as d_residual: neither dy nor the residual is read
/// again, nor the activation computed.
pub(crate) fn backward_of_d_residual(build: &mut Build<'_>, total: Option<Scratch>) {
    let Pointwise { masked, renorm, .. } = build.pointwise;
    let plain = Pointwise { masked, renorm, ..Pointwise::default() };
    let kernel = Kernel::MapBackward { statistics: StatisticsFrom::Gradients, dx: true };
    build.dispatch_of(kernel, plain, Some((Slot::Dy, Slot::DResidual)), total);
}

/// Dispatches the tangent of y, and that of dx if asked for.
pub(crate) fn derivatives(build: &mut Build<'_>, statistics: StatisticsFrom, dx: bool) {
    build.dispatch(Kernel::MapBackward { statistics, dx });
}

/// Dispatches dx, if asked for, and d_residual through frozen statistics alone.
pub(crate) fn frozen(build: &mut Build<'_>, statistics: StatisticsFrom, dx: bool) {
    build.dispatch(Kernel::MapBackward { statistics, dx });
}

/// Prepares y = x for two tensors of one shape: the plainest map, and the yardstick that the benchmark holds every
/// kernel against.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if they differ,
/// [`Error::NotContiguous`](crate::Error::NotContiguous), and what binding the tensors can raise.
pub async fn prepare_copy(context: &Context, x: &Tensor, y: &Tensor) -> Result<Prepared> {
    y.check_shape("y", x.shape())?;
    y.check_dtype("y", x.dtype())?;
    if x.shape().len() == 0 {
        return Ok(Prepared::nothing(context, Op::Copy));
    }
    check_apart((Slot::X, x), (Slot::Y, y))?;
    // What the values are does not matter: as few words as possible.
    let (x, y) = match (as_words(x)?, as_words(y)?) {
        (Some(x), Some(y)) => (x, y),
        _ => (x.clone(), y.clone()),
    };
    let walk = Walk::flat(&[&x, &y], context.capabilities().storage_alignment);
    let plan = context.plan_walk(&walk, None)?;
    let mut build = Build::new(context, Op::Copy, plan);
    build.tensor(Slot::X, &x)?;
    build.tensor(Slot::Y, &y)?;
    build.dispatch(Kernel::MapCopy);
    build.finish(Traffic::passes(x.byte_len(), 2, 2)).await
}

/// Prepares sum = x + addend for tensors of one shape and type; the sum may be written over either.
pub(crate) async fn prepare_sum(
    context: &Context,
    x: &Tensor,
    addend: &Tensor,
    sum: &Tensor,
) -> Result<Prepared> {
    let walk = Walk::flat(&[x, addend, sum], context.capabilities().storage_alignment);
    let plan = context.plan_walk(&walk, None)?;
    let mut build = Build::new(context, Op::Copy, plan);
    build.pointwise.sum = true;
    build.tensor(Slot::X, x)?;
    build.tensor(Slot::Addend, addend)?;
    build.tensor(Slot::Y, sum)?;
    build.dispatch(Kernel::MapCopy);
    build.finish(Traffic::passes(x.byte_len(), 3, 3)).await
}

/// Prepares y = x with its axes in another order: axis k of y is axis `order[k]` of x.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) for more than a binding has room for: what one window needs of x is all over it.
pub(crate) async fn prepare_permuted(
    context: &Context,
    x: &Tensor,
    order: &[usize],
    y: &Tensor,
) -> Result<Prepared> {
    let (from, to) = (x.shape(), y.shape());
    debug_assert!(order.iter().zip(to.dims()).all(|(&axis, &len)| from.dims()[axis] == len));
    for (what, tensor) in [("a tensor that is permuted", x), ("a permuted tensor", y)] {
        tensor.check_contiguous(what)?;
        let around = context.capabilities().storage_alignment;
        check_binding(what, tensor.byte_len().saturating_add(around), context.capabilities())?;
    }
    let walk = Walk::flat(&[x, y], context.capabilities().storage_alignment);
    let plan = context.plan_walk(&Walk { alignment: Alignment::Permuted, ..walk }, None)?;
    let mut build = Build::new(context, Op::Copy, plan);
    let stride_of = |axis: usize| from.dims()[axis + 1..].iter().product::<usize>();
    build.params.axes = [Axis { len: 1, ..Axis::default() }; Shape::MAX_RANK];
    let axes = &mut build.params.axes[Shape::MAX_RANK - order.len()..];
    for (k, &axis) in axes.iter_mut().zip(order) {
        (k.len, k.stride) = (from.dims()[axis] as u32, stride_of(axis) as u32);
    }
    build.tensor(Slot::X, x)?;
    build.tensor(Slot::Y, y)?;
    build.dispatch(Kernel::MapPermute);
    build.finish(Traffic::passes(x.byte_len(), 2, 2)).await
}

/// A contiguous tensor as one of f32, if it begins and ends at multiples of 4 bytes.
fn as_words(tensor: &Tensor) -> Result<Option<Tensor>> {
    let what = "a tensor to copy";
    tensor.check_contiguous(what)?;
    if tensor.dtype() == DType::F32 {
        return Ok(Some(tensor.clone()));
    }
    let whole = (tensor.byte_offset() | tensor.byte_len()).is_multiple_of(4);
    whole.then(|| tensor.as_f32_words()).transpose()
}
