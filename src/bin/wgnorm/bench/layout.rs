//! Layouts of the benchmark: which there are, and the way between logical order (N, C, spatial) and memory.
//!
//! Shapes on the command line and in reports, data and references are logical; only tensors are in memory order.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use wgnorm::{Context, Layout, Result, Tensor};

/// The layouts that can be asked for. A new one is added here, and its tensors are told in [`laid_out`].
pub const ALL: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

/// Parses the name of a layout.
pub fn parser() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(ALL.map(Layout::name)).try_map(|name| {
        ALL.into_iter().find(|layout| layout.name() == name).ok_or_else(|| format!("no layout {name:?}"))
    })
}

/// Whether memory is in logical order.
fn is_logical(layout: Layout) -> bool {
    layout == Layout::ChannelsFirst
}

/// Axis lengths in memory order: channels last has `[N, spatial.., C]`.
pub fn memory_dims(layout: Layout, dims: &[usize]) -> Vec<usize> {
    let mut memory = dims.to_vec();
    if !is_logical(layout) {
        memory[1..].rotate_left(1);
    }
    memory
}

/// A tensor of zeros in a layout.
pub async fn zeros(context: &Context, layout: Layout, dims: &[usize]) -> Result<Tensor> {
    Ok(laid_out(context.zeros(&memory_dims(layout, dims)).await?, layout))
}

/// A tensor in a layout with values that are given in logical order.
pub async fn upload(context: &Context, layout: Layout, dims: &[usize], values: &[f32]) -> Result<Tensor> {
    let tensor = match is_logical(layout) {
        true => context.upload(dims, values).await?,
        false => context.upload(&memory_dims(layout, dims), &transposed(values, dims[0], dims[1])).await?,
    };
    Ok(laid_out(tensor, layout))
}

/// The values of a tensor in logical order.
pub async fn download(context: &Context, dims: &[usize], tensor: &Tensor) -> Result<Vec<f32>> {
    let values = context.download(tensor).await?;
    Ok(match is_logical(tensor.layout()) {
        true => values,
        false => transposed(&values, dims[0], dims[2..].iter().product()),
    })
}

/// A tensor with the dims of a layout, told so.
fn laid_out(tensor: Tensor, layout: Layout) -> Tensor {
    tensor.with_layout(layout)
}

/// Each of `samples` matrices with `rows` rows, transposed.
fn transposed(values: &[f32], samples: usize, rows: usize) -> Vec<f32> {
    let columns = values.len() / (samples * rows).max(1);
    let mut out = vec![0.0; values.len()];
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
    }
}
