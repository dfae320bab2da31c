//! A trained batch norm disappears into the weights of the convolution before it, and the linear layer after another: the
//! network computes the same with two passes over memory less. Before that, the layer is diagnosed.
//!
//! `cargo run --example folding`

use wgnorm::absorb::{Border, Destination, TensorWeights, WeightLayout};
use wgnorm::diagnostics::DiagnosticOptions;
use wgnorm::statistics::Moments;
use wgnorm::{Activation, BatchNorm, BatchNormOptions, Context, DType, FrozenBatchNorm};

const CHANNELS: usize = 4;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 11.0 - 1.0).collect()
}

/// A layer that has seen some batches.
async fn trained(context: &Context, activation: Activation) -> Result<FrozenBatchNorm, wgnorm::Error> {
    let options = BatchNormOptions::pytorch().activation(activation);
    let mut layer = BatchNorm::new(context, CHANNELS, options).await?;
    for batch in 0..40 {
        let x = context.upload(&[8, CHANNELS, 5, 5], &numbers(8 * CHANNELS * 25, batch)).await?;
        layer.train_forward(&x).await?;
    }
    // A batch as small as this is one of the findings.
    let x = context.upload(&[1, CHANNELS, 2, 3], &numbers(CHANNELS * 6, 99)).await?;
    let findings =
        layer.diagnose(Some(&Moments::of(context, &x).await?), &DiagnosticOptions::default()).await?;
    println!("findings: {}", findings.len());
    for finding in findings {
        println!("  {finding}");
    }
    Ok(layer.freeze())
}

fn main() -> Result<(), wgnorm::Error> {
    let context = Context::headless_blocking()?;
    context.block_on(async {
        // relu(bn(conv(x))): the weights of a depthwise convolution, in bfloat16, are written over.
        let norm = trained(&context, Activation::Relu).await?;
        let dims = [CHANNELS, 1, 3, 3];
        let weight = context.upload_as(&dims, &numbers(CHANNELS * 9, 1), DType::Bf16).await?;
        let layout = WeightLayout::OutputFirst { groups: CHANNELS };
        let weights = TensorWeights { weight: &weight, bias: None, layout };
        let folded = norm.absorb_into_preceding(&weights, Destination::InPlace).await?;
        println!(
            "convolution: bias {:?}, left to apply: {}",
            context.download(&folded.bias).await?,
            folded.activation.name()
        );
        println!("  for |x| <= 1 outputs differ by at most {:.1e}", folded.deviation.of_output(1.0));

        // linear(bn(x)): a linear layer has no border, so it takes over the norm before it.
        let norm = trained(&context, Activation::None).await?;
        let weight = context.upload(&[2, CHANNELS], &numbers(2 * CHANNELS, 2)).await?;
        let bias = context.upload(&[2], &[0.5, -0.5]).await?;
        let layout = WeightLayout::OutputFirst { groups: 1 };
        let weights = TensorWeights { weight: &weight, bias: Some(&bias), layout };
        let folded = norm.absorb_into_following(&weights, Border::Unpadded, Destination::New).await?;
        println!("linear: for |x| <= 1 outputs differ by at most {:.1e}", folded.deviation.of_output(1.0));

        // Padded with zeros, it would be wrong at the border, and so is refused.
        let padded = norm.absorb_into_following(&weights, Border::Zeros, Destination::New).await;
        println!("padded: {}", padded.expect_err("the norm shifts"));

        // Or as plain numbers for an epilogue of one's own.
        let epilogue = norm.scale_shift().await?;
        println!("y = x * {:?} + {:?}", epilogue.scale, epilogue.shift);
        Ok(())
    })
}
