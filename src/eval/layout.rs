//! Layouts: which there are, and the way between logical order (N, C, spatial) and memory.
//!
//! Shapes of problems are logical; only tensors are in memory order.

use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Layout;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;

/// The layouts that can be asked for.
pub const ALL: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// The layout of a name.
pub fn named(name: &str) -> Option<Layout> {
    ALL.into_iter().find(|layout| layout.name() == name)
}

/// Whether memory is in logical order.
fn is_logical(layout: Layout) -> bool {
    layout == Layout::ChannelsFirst
}

/// Axis lengths in logical order from those in memory.
pub fn logical_dims(layout: Layout, memory: &[usize]) -> Vec<usize> {
    let mut dims = memory.to_vec();
    if !is_logical(layout) && dims.len() > 1 {
        dims[1..].rotate_right(1);
    }
    dims
}

/// Values in the memory order of one layout, put into that of another; `dims` are logical.
pub fn rearranged<T: Copy + Default>(values: &[T], dims: &[usize], from: Layout, to: Layout) -> Vec<T> {
    match (is_logical(from), is_logical(to)) {
        (true, false) => transposed(values, dims[0], dims[1]),
        (false, true) => transposed(values, dims[0], dims[2..].iter().product()),
        _ => values.to_vec(),
    }
}

/// Axis lengths in memory order: channels last has `[N, spatial.., C]`.
pub fn memory_dims(layout: Layout, dims: &[usize]) -> Vec<usize> {
    let mut memory = dims.to_vec();
    if !is_logical(layout) {
        memory[1..].rotate_left(1);
    }
    memory
}

/// A tensor in a layout with values that are given in logical order.
pub async fn upload(
    context: &Context,
    layout: Layout,
    dims: &[usize],
    values: &[f32],
    dtype: DType,
) -> Result<Tensor> {
    let values = rearranged(values, dims, Layout::ChannelsFirst, layout);
    Ok(context.upload_as(&memory_dims(layout, dims), &values, dtype).await?.with_layout(layout))
}

/// The values of a tensor in logical order.
pub async fn download(context: &Context, dims: &[usize], tensor: &Tensor) -> Result<Vec<f32>> {
    let values = context.download(tensor).await?;
    Ok(rearranged(&values, dims, tensor.layout(), Layout::ChannelsFirst))
}

/// Each of `samples` matrices with `rows` rows, transposed.
fn transposed<T: Copy + Default>(values: &[T], samples: usize, rows: usize) -> Vec<T> {
    let columns = values.len() / (samples * rows).max(1);
    let mut out = vec![T::default(); values.len()];
    for n in 0..samples {
        let start = n * rows * columns;
        for row in 0..rows {
            for column in 0..columns {
                out[start + column * rows + row] = values[start + row * columns + column];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_there_and_back_changes_nothing() {
        // [2, 3, 4] as channels first and channels last.
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let last = transposed(&values, 2, 3);
        // Sample 1, position 2, channel 1.
        assert_eq!(last[12 + 2 * 3 + 1], 12.0 + 4.0 + 2.0);
        assert_eq!(transposed(&last, 2, 4), values);
    }

    #[test]
    fn channels_first_is_logical() {
        assert_eq!(memory_dims(Layout::ChannelsFirst, &[2, 3, 4, 5]), [2, 3, 4, 5]);
        assert_eq!(memory_dims(Layout::ChannelsLast, &[2, 3, 4, 5]), [2, 4, 5, 3]);
        assert_eq!(logical_dims(Layout::ChannelsLast, &[2, 4, 5, 3]), [2, 3, 4, 5]);
    }
}
