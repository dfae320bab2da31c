//! An application that owns its device and buffers: prepare once, record every step into the application's encoder.
//!
//! `cargo run --release --example own_device`

use wgnorm::{BatchNorm, BatchNormOptions, Context, GradientTargets, Saved, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The application's own device, with the adapter's limits so that large tensors can be bound.
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: adapter.limits(),
        ..Default::default()
    }))?;
    let context = Context::from_wgpu(device.clone(), queue.clone())?;

    // Its own buffer for activations; x, y, dy and dx are parts of it.
    let shape = [4, 16, 14, 14];
    let bytes = shape.iter().product::<usize>() as u64 * 4;
    let part = bytes.next_multiple_of(256);
    let activations = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("activations"),
        size: 4 * part,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let tensor = |index: u64| Tensor::from_buffer(&context, activations.clone(), index * part, &shape);
    let (x, y, dy, dx) = (tensor(0)?, tensor(1)?, tensor(2)?, tensor(3)?);

    context.block_on(async {
        let mut layer = BatchNorm::new(&context, shape[1], BatchNormOptions::pytorch()).await?;
        let dgamma = context.zeros(&[shape[1]]).await?;
        let dbeta = context.zeros(&[shape[1]]).await?;
        let saved = Saved::new(&context, &x).await?;
        let forward = layer.prepare_train_forward(&x, &y, Some(&saved)).await?;
        let targets = GradientTargets::default().dx(&dx).dgamma(&dgamma).dbeta(&dbeta);
        let backward = layer.prepare_backward(&x, &dy, &saved, &targets).await?;

        for step in 0..3 {
            let values: Vec<f32> = (0..bytes / 4).map(|i| ((i * 37 + step * 11) % 101) as f32).collect();
            queue.write_buffer(&activations, x.byte_offset(), bytemuck::cast_slice(&values));
            queue.write_buffer(&activations, dy.byte_offset(), bytemuck::cast_slice(&values));
            let mut encoder = device.create_command_encoder(&Default::default());
            forward.record(&mut layer, &mut encoder)?;
            backward.record(&mut encoder);
            queue.submit([encoder.finish()]);
        }
        let running = layer.running().download(&context).await?;
        println!("after {} batches: running mean of channel 0 is {:.4}", running.batches, running.mean[0]);
        println!("dgamma of channel 0: {:.4}", context.download(&dgamma).await?[0]);
        Ok(())
    })
}
