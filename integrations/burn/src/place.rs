//! burn's tensors as wgnorm's: the same bytes of the same buffers.

use std::any::Any;
use std::ops::Deref;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use cubecl::zspace::{Strides, metadata::Metadata};
use wgnorm::{Context, Layout, Tensor};

use crate::fallback;
use crate::problem::element;

type Server = WgpuServer<AutoCompiler>;

/// A tensor of wgnorm's over memory that cubecl leaves where it is as long as this is held.
pub struct Placed {
    tensor: Tensor,
    _resource: Box<dyn Any + Send>,
}

impl Deref for Placed {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// A tensor of burn's whose elements lie densely, channels first or last.
pub struct Dense {
    pub tensor: CubeTensor,
    pub layout: Layout,
}

impl Dense {
    /// As it lies, if channels may be last where they are; else a copy.
    pub fn of(tensor: CubeTensor, may_be_last: bool) -> Self {
        match layout_of(&tensor) {
            Some(layout) if may_be_last || layout == Layout::ChannelsFirst => Self { tensor, layout },
            _ => {
                fallback::count_copy();
                Self { tensor: into_contiguous(tensor), layout: Layout::ChannelsFirst }
            }
        }
    }

    /// In a given layout, copied if it lies otherwise.
    pub fn in_layout(tensor: CubeTensor, layout: Layout) -> Self {
        let lies_so = match layout {
            Layout::ChannelsFirst => !tensor.meta.is_tiled() && tensor.is_contiguous(),
            _ => layout_of(&tensor) == Some(layout),
        };
        if lies_so {
            return Self { tensor, layout };
        }
        fallback::count_copy();
        let tensor = match layout {
            Layout::ChannelsFirst => into_contiguous(tensor),
            _ => permuted(into_contiguous(permuted(tensor, channels_to_last)), channels_to_second),
        };
        Self { tensor, layout }
    }

    /// Room for a tensor that lies as this one.
    pub fn room(&self) -> Self {
        let tensor = room(&self.tensor, &self.memory_dims(), self.tensor.dtype);
        let tensor = match self.layout {
            Layout::ChannelsFirst => tensor,
            _ => permuted(tensor, channels_to_second),
        };
        Self { tensor, layout: self.layout }
    }

    /// Where it lies, in a shape of as many elements in memory order.
    pub fn place(&self, context: &Context, dims: &[usize]) -> wgnorm::Result<Placed> {
        let placed = place(context, &self.tensor, dims)?;
        Ok(Placed { tensor: placed.tensor.with_layout(self.layout), ..placed })
    }

    /// Axis lengths in memory order.
    pub fn memory_dims(&self) -> Vec<usize> {
        let dims = self.tensor.meta.shape().iter().copied().collect();
        if self.layout == Layout::ChannelsFirst { dims } else { channels_to_last(dims) }
    }
}

/// Room on the device of another tensor.
pub fn room(beside: &CubeTensor, dims: &[usize], dtype: DType) -> CubeTensor {
    let shape = Shape::from(dims.to_vec());
    empty_device_contiguous_dtype(beside.client.clone(), beside.device.clone(), shape, dtype)
}

/// A dense tensor where it lies, in whatever shape. Everything that burn has queued for it so far is in wgpu's queue when this returns.
pub fn place(context: &Context, tensor: &CubeTensor, dims: &[usize]) -> wgnorm::Result<Placed> {
    let resource = tensor.client.get_resource::<Server>(tensor.handle.clone());
    // A device that is none of cubecl's wgpu runtime is never shared.
    let resource =
        resource.unwrap_or_else(|error| panic!("a tensor of burn's wgpu backend without memory: {error:?}"));
    let WgpuResource { buffer, offset, .. } = resource.resource().clone();
    let dtype = element(tensor.dtype);
    let dtype = dtype.unwrap_or_else(|| panic!("a tensor of {:?} where the kernels take none", tensor.dtype));
    let tensor = Tensor::from_buffer_as(context, buffer, offset, dims, dtype)?;
    Ok(Placed { tensor, _resource: Box::new(resource) })
}

fn layout_of(tensor: &CubeTensor) -> Option<Layout> {
    if tensor.meta.is_tiled() {
        return None;
    }
    if tensor.is_contiguous() {
        return Some(Layout::ChannelsFirst);
    }
    let last = tensor.rank() > 2 && permuted(tensor.clone(), channels_to_last).is_contiguous();
    last.then_some(Layout::ChannelsLast)
}

/// The same memory with its axes in another order.
fn permuted(tensor: CubeTensor, order: fn(Vec<usize>) -> Vec<usize>) -> CubeTensor {
    let shape = order(tensor.meta.shape().iter().copied().collect());
    let strides = order(tensor.meta.strides().iter().copied().collect());
    let meta = Metadata::new(Shape::from(shape), strides.into_iter().collect::<Strides>());
    CubeTensor { meta: Box::new(meta), ..tensor }
}

/// `[N, C, …]` to `[N, …, C]`.
fn channels_to_last(mut axes: Vec<usize>) -> Vec<usize> {
    axes[1..].rotate_left(1);
    axes
}

/// `[N, …, C]` to `[N, C, …]`.
fn channels_to_second(mut axes: Vec<usize>) -> Vec<usize> {
    axes[1..].rotate_right(1);
    axes
}
