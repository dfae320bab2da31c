//! Padded rows: what a mask leaves out has no part in gradients, whatever it is.

use wgnorm::family::ScaleNorm;
use wgnorm::{Activation, Error, GroupNorm, LayerNorm, Layout, Mask, NormOptions, RmsNorm, Tensor};

use crate::support::*;

const ROWS: usize = 6;
const WIDTH: usize = 8;

fn layer() -> LayerNorm {
    context().block_on(LayerNorm::new(&context(), &[WIDTH], NormOptions::layer())).unwrap()
}

fn tensor(seed: u64, fill: impl Fn(usize) -> Option<f32>) -> Tensor {
    let mut drawn = values(seed, ROWS * WIDTH, 0.0, 1.0);
    for (i, value) in drawn.iter_mut().enumerate() {
        *value = fill(i / WIDTH).unwrap_or(*value);
    }
    upload(&context(), &[2, ROWS / 2, WIDTH], &drawn)
}

/// dx, dgamma, dbeta.
async fn gradients(layer: &LayerNorm, x: &Tensor, dy: &Tensor, mask: Option<&Mask>) -> [Vec<f32>; 3] {
    let context = context();
    let input = wgnorm::Input::from(x).masked(mask);
    let (_, saved) = layer.forward(input).await.unwrap();
    let gradients = layer.backward(input, dy, &saved).await.unwrap();
    let [dgamma, dbeta] = [gradients.dgamma.unwrap(), gradients.dbeta.unwrap()];
    [
        context.download(&gradients.dx).await.unwrap(),
        context.download(&dgamma).await.unwrap(),
        context.download(&dbeta).await.unwrap(),
    ]
}

#[test]
fn padding_may_be_anything() {
    let context = context();
    let layer = layer();
    let keep = [true, false, true, true, false, false];
    context.block_on(async {
        let mask = Mask::of_rows(&context, &keep).await.unwrap();
        // What has no gradient and no padding in it is the measure.
        let (x, dy) = (tensor(1, |_| None), tensor(2, |row| (!keep[row]).then_some(0.0)));
        let expected = gradients(&layer, &x, &dy, None).await;
        for padding in [f32::NAN, f32::INFINITY, 1e30, 0.0] {
            let x = tensor(1, |row| (!keep[row]).then_some(padding));
            let dy = tensor(2, |row| (!keep[row]).then_some(padding));
            assert_eq!(gradients(&layer, &x, &dy, Some(&mask)).await, expected, "{padding}");
        }
        // A mask of the positions of [batch, time, width], as batch norm has it.
        let last = Tensor::from_buffer(&context, x.buffer().clone(), 0, &[2, ROWS / 2, WIDTH]).unwrap();
        let last = last.with_layout(Layout::ChannelsLast);
        let of_lengths = Mask::of_lengths(&context, &last, &[2, 1]).await.unwrap();
        let kept = [true, true, false, true, false, false];
        let of_rows = Mask::of_rows(&context, &kept).await.unwrap();
        let dy = tensor(2, |_| None);
        let expected = gradients(&layer, &x, &dy, Some(&of_rows)).await;
        assert_eq!(gradients(&layer, &x, &dy, Some(&of_lengths)).await, expected);
        // Other truth values, later.
        of_rows.write(&context, &keep).await.unwrap();
        let padded = tensor(2, |row| (!keep[row]).then_some(0.0));
        assert_eq!(
            gradients(&layer, &x, &dy, Some(&of_rows)).await,
            gradients(&layer, &x, &padded, None).await
        );
    });
}

#[test]
fn nothing_but_padding_has_no_gradient() {
    let context = context();
    let layer = layer();
    context.block_on(async {
        let mask = Mask::of_rows(&context, &[false; ROWS]).await.unwrap();
        let x = tensor(1, |_| Some(f32::NAN));
        let [dx, dgamma, dbeta] = gradients(&layer, &x, &x, Some(&mask)).await;
        assert!(dx.iter().chain(&dgamma).chain(&dbeta).all(|value| *value == 0.0));
        // y is what it is without a mask.
        let x = tensor(1, |_| None);
        let masked = layer.infer(x.masked(&mask)).await.unwrap();
        let plain = layer.infer(&x).await.unwrap();
        assert_eq!(context.download(&masked).await.unwrap(), context.download(&plain).await.unwrap());
    });
}

/// Without an activation too, dy of what is masked counts as 0.
#[test]
fn residuals_have_no_gradient_where_rows_are_masked() {
    let context = context();
    let layer = layer();
    context.block_on(async {
        let mask = Mask::of_rows(&context, &[true, true, true, false, true, true]).await.unwrap();
        let (x, residual, dy) = (tensor(1, |_| None), tensor(2, |_| None), tensor(3, |_| None));
        let input = x.with_residual(&residual).masked(&mask);
        let (_, saved) = layer.forward(input).await.unwrap();
        let gradients = layer.backward(input, &dy, &saved).await.unwrap();
        let d_residual = context.download(gradients.d_residual.as_ref().unwrap()).await.unwrap();
        let mut expected = context.download(&dy).await.unwrap();
        expected[3 * WIDTH..4 * WIDTH].fill(0.0);
        assert_eq!(d_residual, expected);
    });
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    let context = context();
    let layer = layer();
    context.block_on(async {
        let (x, dy) = (tensor(1, |_| None), tensor(2, |_| None));
        let mask = Mask::of_rows(&context, &[true; ROWS]).await.unwrap();
        let short = Mask::of_rows(&context, &[true; ROWS - 1]).await.unwrap();
        let got = layer.forward(x.masked(&short)).await.unwrap_err();
        assert!(matches!(got, Error::Number { expected: ROWS, got: 5, .. }), "{got}");
        assert_eq!(got.to_string(), "positions of the mask, one for each row of x: expected 6, got 5");
        let theirs = Mask::of_rows(&own_context(), &[true; ROWS]).await.unwrap();
        refused!(layer.infer(x.masked(&theirs)).await, Error::ForeignDevice { .. });
        let (_, saved) = layer.forward(x.masked(&mask)).await.unwrap();
        refused!(layer.backward(&x, &dy, &saved).await, Error::Masked { expected: true });
        let (_, saved) = layer.forward(&x).await.unwrap();
        refused!(layer.backward(x.masked(&mask), &dy, &saved).await, Error::Masked { expected: false });
        // Those of rows take one, others do not.
        let (rms, relu) = (NormOptions::rms(), NormOptions::layer().activation(Activation::Relu));
        let rms = RmsNorm::new(&context, &[WIDTH], rms).await.unwrap();
        rms.forward(x.masked(&mask)).await.unwrap();
        let scale = ScaleNorm::new(&context, WIDTH, NormOptions::scale()).await.unwrap();
        scale.forward(x.masked(&mask)).await.unwrap();
        let pair = Mask::of_rows(&context, &[true; 2]).await.unwrap();
        let over_two = LayerNorm::new(&context, &[ROWS / 2, WIDTH], relu).await.unwrap();
        over_two.forward(x.masked(&pair)).await.unwrap();
        let group = GroupNorm::new(&context, 1, ROWS / 2, NormOptions::group()).await.unwrap();
        refused!(group.forward(x.masked(&mask)).await, Error::Unsupported { what: "mask", .. });
    });
}
