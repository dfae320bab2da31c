//! The end of a residual block in bfloat16, relu(bn(x) + skip): forward and backward, each activation moved as seldom as
//! can be, and x̂ of a second layer recovered from y, so that its x need not be kept.
//!
//! `cargo run --example residual_block`

use wgnorm::{Activation, BatchNorm, BatchNormOptions, Context, DType, GradientTargets, Saved};

const SHAPE: [usize; 4] = [4, 16, 14, 14];

fn main() -> Result<(), wgnorm::Error> {
    let context = Context::headless_blocking()?;
    context.block_on(async {
        let values =
            |seed: usize| (0..4 * 16 * 14 * 14).map(move |i| ((i * 31 + seed) % 19) as f32 / 9.0 - 1.0);
        let tensor =
            async |seed| context.upload_as(&SHAPE, &values(seed).collect::<Vec<_>>(), DType::Bf16).await;
        let (x, skip, dy) = (tensor(1).await?, tensor(2).await?, tensor(3).await?);

        // One pass normalizes, adds and clips; its backward pass stores no mask.
        let relu = BatchNormOptions::pytorch().activation(Activation::Relu);
        let mut layer = BatchNorm::new(&context, 16, relu).await?;
        let (y, saved) = layer.train_forward(x.with_residual(&skip)).await?;
        let gradients = layer.backward(x.with_residual(&skip), &dy, &saved).await?;
        let d_skip = gradients.d_residual.expect("there is a residual");
        println!("relu(bn(x) + skip): {} bytes each of x, y and {}", y.byte_len(), d_skip.dtype());

        // A leaky ReLU can be inverted: y is written over x, and dx over dy.
        let leaky = BatchNormOptions::pytorch().activation(Activation::LeakyRelu { slope: 0.01 });
        let mut layer = BatchNorm::new(&context, 16, leaky).await?;
        let saved = Saved::in_place(&context, &x).await?;
        let forward = layer.prepare_train_forward(&x, &x, Some(&saved)).await?;
        layer.submit(&forward).await?;
        let y = x;
        let targets = GradientTargets::default().dx(&dy);
        let backward = layer.prepare_backward(&y, &dy, &saved, &targets).await?;
        context.submit(&[&backward]).await?;
        let dx = dy;
        println!("in place: dx[0] = {}", context.download(&dx).await?[0]);
        assert!(saved.download(&context).await?.iter().all(|statistics| statistics.recoverable));
        Ok(())
    })
}
