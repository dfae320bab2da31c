//! A training loop as an application has it: batches come, are normalized, and are dropped.

use wasm_bindgen::prelude::*;
use wgnorm::{BatchNorm, BatchNormOptions, Context, wgpu};

const CHANNELS: usize = 32;
const POSITIONS: usize = 64 * 64;

/// Trains batch norm on so many batches of `samples` samples, 512 KiB each, whose channel `c` is of mean `c`, and returns the running means.
///
/// # Errors
/// Those of the device: a browser may take it away at any time, which every call that is awaited tells.
#[wasm_bindgen]
pub async fn train(batches: usize, samples: usize) -> Result<Vec<f32>, JsError> {
    // A device of the application's own.
    let instance = wgpu::Instance::default();
    let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await?;
    let (device, queue) = adapter.request_device(&wgpu::DeviceDescriptor::default()).await?;
    let context = Context::from_wgpu(device, queue)?;
    let mut layer = BatchNorm::new(&context, CHANNELS, BatchNormOptions::pytorch()).await?;
    for batch in 0..batches {
        let of = |i: usize| {
            (i / POSITIONS % CHANNELS) as f32 + if (i + batch).is_multiple_of(2) { 1.0 } else { -1.0 }
        };
        let x: Vec<f32> = (0..samples * CHANNELS * POSITIONS).map(of).collect();
        let x = context.upload(&[samples, CHANNELS, POSITIONS], &x).await?;
        let (y, saved) = layer.train_forward(&x).await?;
        // Of a loss of half the sum of squares, y is the gradient.
        let gradients = layer.backward(&x, &y, &saved).await?;
        // What is dropped here is let go of here, and not when JavaScript collects garbage.
        drop((x, y, gradients));
    }
    let values = layer.running().download(&context).await?;
    Ok(values.mean)
}
