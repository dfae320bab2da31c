//! All batch-norm layers of ResNet-50, by torchvision's names and shapes, among tensors of other layers.

use safetensors::Dtype;
use wgnorm::state::{LoadOptions, ModelState, Naming, SaveOptions};
use wgnorm::{Affine, BatchNormOptions};

use crate::gpu::context;
use crate::support::*;

/// Names and channels of the 53 layers.
fn layers() -> Vec<(String, usize)> {
    let mut layers = vec![("bn1".to_owned(), 64)];
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let (stage, width) = (stage + 1, 64 << stage);
        for block in 0..blocks {
            let name = format!("layer{stage}.{block}");
            layers.push((format!("{name}.bn1"), width));
            layers.push((format!("{name}.bn2"), width));
            layers.push((format!("{name}.bn3"), 4 * width));
            if block == 0 {
                layers.push((format!("{name}.downsample.1"), 4 * width));
            }
        }
    }
    layers
}

/// Bytes of any bit pattern, NaN of every payload among them.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn resnet50() -> Vec<u8> {
    let mut tensors = vec![
        made("conv1.weight", Dtype::F32, &[64, 3, 7, 7], noise(1, 4 * 64 * 3 * 49)),
        made("layer1.0.conv1.weight", Dtype::BF16, &[64, 64, 1, 1], noise(2, 2 * 64 * 64)),
        made("layer1.0.downsample.0.weight", Dtype::F16, &[256, 64, 1, 1], noise(3, 2 * 256 * 64)),
        made("fc.bias", Dtype::F32, &[1000], noise(4, 4000)),
    ];
    for (seed, (name, channels)) in layers().into_iter().enumerate() {
        for (index, tensor) in ["weight", "bias", "running_mean", "running_var"].into_iter().enumerate() {
            let data = noise(100 + 4 * seed as u64 + index as u64, 4 * channels);
            tensors.push(made(&format!("{name}.{tensor}"), Dtype::F32, &[channels], data));
        }
        tensors.push(count(&format!("{name}.num_batches_tracked"), 450_000 + seed as i64));
    }
    file(&tensors, &[("format", "pt")])
}

#[test]
fn all_53_layers_go_to_the_gpu_and_back_byte_for_byte() {
    let (context, naming) = (context(), Naming::pytorch());
    let bytes = resnet50();
    let mut state = ModelState::from_bytes(bytes.clone()).unwrap();
    let found = state.layers(&naming).unwrap();
    let mut names: Vec<_> = found.layers.iter().map(|layer| (layer.name.clone(), layer.channels)).collect();
    names.sort();
    let mut expected = layers();
    assert_eq!(expected.len(), 53);
    expected.sort();
    assert_eq!(names, expected);
    assert!(found.refused.is_empty() && found.layers.iter().all(|layer| layer.affine() == Affine::Both));

    let specs: Vec<_> = found.layers.iter().map(|layer| layer.spec(BatchNormOptions::pytorch())).collect();
    context.clone().block_on(async {
        let (layers, report) = state.load(&context, &naming, &specs, &LoadOptions::strict()).await.unwrap();
        assert_eq!((layers.len(), report.missing.len(), report.uncounted.len()), (53, 0, 0));
        let saved: Vec<_> =
            specs.iter().zip(&layers).map(|(spec, layer)| (spec.name.as_str(), layer.into())).collect();
        state.save(&context, &naming, &saved, &SaveOptions::default()).await.unwrap();
        assert!(*state.to_bytes() == *bytes, "the file changed");

        // The layers hold what the file does, not only what was already there: saved into zeros they make the same file.
        let mut zeroed = bytes.clone();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors.iter() {
            if !name.contains("conv") && !name.contains("fc") && !name.contains("downsample.0") {
                let begin = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
                zeroed[begin..begin + tensor.data().len()].fill(0);
            }
        }
        let mut copy = ModelState::from_bytes(zeroed).unwrap();
        copy.save(&context, &naming, &saved, &SaveOptions::default()).await.unwrap();
        assert!(*copy.to_bytes() == *bytes, "the layers are not those of the file");

        // And the file made anew is laid out as the one that was read.
        let mut anew = ModelState::new();
        anew.save(&context, &naming, &saved, &SaveOptions::default()).await.unwrap();
        assert_eq!(anew.layers(&naming).unwrap(), found);
    });
}
