//! A y of int8: what it must be with the scales of its rows, and the pass that writes them.

use super::arena::Role;
use super::expected::Expected;
use super::layout;
use super::problem::Problem;
use super::run::Run;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::pass::input::Input;
use crate::reference::bounds::U;
use crate::spec::AsInt8;

/// y in rows of so many values, with its bounds before it is stored, as int8 and scales. Values may be on either side of a half.
pub(super) fn expected(int8: AsInt8, y: &[f64], bound: impl Fn(usize) -> f64, row: usize) -> Vec<Expected> {
    let (scales, errors) = match int8 {
        AsInt8::PerTensor { scale, .. } => (vec![f64::from(scale); y.len().div_ceil(row.max(1))], Vec::new()),
        AsInt8::PerRow => {
            (0..y.len()).step_by(row.max(1)).map(|first| scale_of(y, &bound, first..first + row)).unzip()
        }
    };
    let zero = match int8 {
        AsInt8::PerTensor { zero_point, .. } => f64::from(zero_point),
        AsInt8::PerRow => 0.0,
    };
    let of = |i: usize| (i / row, scales[i / row]);
    let value = |i: usize| match of(i).1 {
        // NaN has no int8, and of nothing but zeros there are zeros.
        scale if (y[i] / scale).is_nan() => zero,
        scale => (y[i] / scale + zero).clamp(-128.0, 127.0),
    };
    // Steps by which y and its scale are off; and the quotient's own rounding.
    let gate = |i: usize| match of(i) {
        (_, scale) if (y[i] / scale).is_nan() => 0.0,
        (row, scale) => {
            let of_scale = errors.get(row).map_or(0.0, |error| error / scale);
            bound(i) / scale + (y[i] / scale).abs() * (of_scale + 8.0 * U) + 4.0 * U * zero.abs()
        }
    };
    let mut all = vec![Expected::stored(DType::I8, "y", (0..y.len()).map(value).collect(), gate)];
    if int8 == AsInt8::PerRow {
        all.push(Expected::new("scales", scales.clone(), |row| errors[row]));
    }
    all
}

/// The scale of a row, and its error: of NaN NaN.
fn scale_of(y: &[f64], bound: &impl Fn(usize) -> f64, row: std::ops::Range<usize>) -> (f64, f64) {
    let greatest = |so_far: f64, value: f64| {
        if so_far.is_nan() || value.is_nan() { f64::NAN } else { so_far.max(value) }
    };
    let magnitude = row.clone().map(|i| y[i].abs()).fold(0.0, greatest);
    let error = row.map(bound).fold(0.0, f64::max);
    (magnitude / 127.0, (error + 4.0 * U * magnitude) / 127.0)
}

impl Run<'_> {
    /// A y of int8, and the scales of its rows.
    pub(super) async fn int8_pass(&mut self, int8: AsInt8) -> Result<()> {
        let Problem { spec, inputs, .. } = self.problem;
        let layer = self.layer().await?;
        let x = self.put(&inputs.x, Role::Read).await?;
        let residual = self.put_if(inputs.residual.as_deref(), Role::Read).await?;
        let gate = self.put_if(inputs.gate.as_deref(), Role::Read).await?;
        let addend = self.put_if(inputs.addend.as_deref(), Role::Read).await?;
        let sum = if spec.sum { Some(self.output().await?) } else { None };
        let input = Input::from(&x).with_residual(residual.as_ref());
        let input = match (&gate, spec.gate) {
            (Some(gate), Some(order)) => input.gated(gate, order),
            _ => input,
        };
        let input = match (&addend, &sum) {
            (Some(addend), Some(sum)) => input.plus(addend, sum),
            _ => input,
        };
        // What is written of neither is a number that no row has.
        let nothing = vec![77.0; inputs.x.len()];
        let y = layout::upload(self.context, self.layout, &spec.shape, &nothing, DType::I8).await?;
        let row = spec.shape.last().copied().unwrap_or(1).max(1);
        let scales = self.context.upload(&[inputs.x.len() / row], &vec![-1.0; inputs.x.len() / row]).await?;
        let int8 = int8.into_scales(&scales);
        let infer = layer.prepare_infer_int8(input, &y, int8).await?;
        self.took(infer.kernels());
        self.context.submit(&[&infer]).await?;
        self.push_batch("y", &y).await?;
        if let Some(sum) = &sum {
            self.push_batch("sum", sum).await?;
        }
        let scales = self.context.download(&scales).await?;
        self.push("scales", scales);
        Ok(())
    }
}
