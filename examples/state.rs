//! The batch-norm layers of a PyTorch model: listed, loaded onto the GPU, saved back unchanged, and saved by Keras' names.
//!
//! `cargo run --release --features safetensors --example state [MODEL.safetensors [OUT.safetensors]]`

use wgnorm::state::{Framework, LayerValues, LoadOptions, ModelState, SaveOptions};
use wgnorm::{Context, RunningVariance};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/state/pytorch.safetensors");
    let (path, out) = (arguments.next().unwrap_or(fixture.into()), arguments.next());

    let mut state = ModelState::read(&path)?;
    let original = state.to_bytes().into_owned();
    let (torch, keras) = (Framework::PyTorch, Framework::Keras);
    let found = state.layers(&torch.naming())?;
    for layer in &found.layers {
        println!(
            "{}: {} channels, affine {:?}, {:?} batches",
            layer.name,
            layer.channels,
            layer.affine(),
            layer.batches
        );
    }
    for mismatch in &found.refused {
        println!("not a layer: {mismatch}");
    }

    // All of them on the GPU. eps and momentum are not in the file; these are PyTorch's defaults.
    let context = Context::headless_blocking()?;
    // Each with the parameters that the file has: one of its layers has none.
    let specs: Vec<_> =
        found.layers.iter().map(|layer| layer.spec(torch.options().affine(layer.affine()))).collect();
    let (layers, report) =
        context.block_on(state.load(&context, &torch.naming(), &specs, &LoadOptions::strict()))?;
    println!("{} layers loaded; {report}", layers.len());

    // Saved as they are, they leave the file as it was.
    let named: Vec<_> =
        specs.iter().zip(&layers).map(|(spec, layer)| (spec.name.as_str(), layer.into())).collect();
    context.block_on(state.save(&context, &torch.naming(), &named, &SaveOptions::default()))?;
    assert_eq!(*state.to_bytes(), original);
    println!("saved again: the same {} bytes", original.len());

    // Keras runs the biased variance. An application knows how many values per channel its batches had, layer by layer;
    // the fixture's layers saw 4 samples of 6x6.
    let mut converted = ModelState::new();
    for (spec, layer) in specs.iter().zip(&layers) {
        let mut values = context.block_on(LayerValues::download(&context, layer))?;
        values.rebias(RunningVariance::Biased, Some(4 * 6 * 6))?;
        let name = spec.name.replace('.', "/");
        converted.set(&keras.naming(), &[(&name, &values)], &SaveOptions::default())?;
    }
    for tensor in converted.tensors() {
        println!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape);
    }
    let momentum = keras.momentum(torch.options().momentum)?;
    println!("eps {}, Keras' momentum {momentum:?}", torch.options().eps);
    if let Some(out) = out {
        converted.write(&out)?;
    }
    Ok(())
}
