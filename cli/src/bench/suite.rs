//! What is benchmarked: the norms of a network, or shapes from a file or the command line.

use std::num::NonZeroU32;
use std::str::FromStr;

use clap::ValueEnum;

use super::norm::{Norm, NormName};
use crate::Refusal;

/// An operation of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum BenchOp {
    TrainForward,
    TrainBackward,
    Inference,
    FrozenBackward,
    /// Forward mode
    Tangent,
    /// Gradients of gradients
    SecondBackward,
}

impl BenchOp {
    /// All that are timed unless some are chosen, and then those that are timed only if they are.
    pub const ALL: [Self; 6] = [
        Self::TrainForward,
        Self::TrainBackward,
        Self::Inference,
        Self::FrozenBackward,
        Self::Tangent,
        Self::SecondBackward,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::TrainForward => "train_forward",
            Self::TrainBackward => "train_backward",
            Self::Inference => "inference",
            Self::FrozenBackward => "frozen_backward",
            Self::Tangent => "tangent",
            Self::SecondBackward => "second_backward",
        }
    }

    /// Whether it uses running statistics instead of the batch's.
    pub const fn is_frozen(self) -> bool {
        matches!(self, Self::Inference | Self::FrozenBackward)
    }

    /// Whether it is a derivative of the passes.
    pub const fn is_derivative(self) -> bool {
        matches!(self, Self::Tangent | Self::SecondBackward)
    }

    pub const fn is_forward(self) -> bool {
        matches!(self, Self::TrainForward | Self::Inference)
    }
}

/// A norm of a shape, and how often the network has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub norm: Norm,
    pub dims: Vec<usize>,
    pub times: u32,
}

/// A shape from the command line.
#[derive(Clone, Debug)]
pub struct Dims(pub Vec<usize>);

/// Channels, edge of the square map, and number of such layers.
type Square = (usize, usize, u32);

/// The 53 batch-norm layers of ResNet-50 at 224 × 224.
///
/// He et al., "Deep Residual Learning for Image Recognition", 2015, table 1, with the stride on the 3 × 3 convolution
/// (torchvision's ResNet-50).
const RESNET50: [Square; 12] = [
    (64, 112, 1),
    (64, 56, 6),
    (256, 56, 4),
    (128, 56, 1),
    (128, 28, 7),
    (512, 28, 5),
    (256, 28, 1),
    (256, 14, 11),
    (1024, 14, 7),
    (512, 14, 1),
    (512, 7, 5),
    (2048, 7, 4),
];

/// A sweep over tensor sizes, each twice the one before: 64 KiB to 64 MiB at batch 8.
const SIZES: [Square; 11] = [
    (32, 8, 1),
    (64, 8, 1),
    (32, 16, 1),
    (64, 16, 1),
    (32, 32, 1),
    (64, 32, 1),
    (32, 64, 1),
    (64, 64, 1),
    (32, 128, 1),
    (64, 128, 1),
    (32, 256, 1),
];

/// The suites of shapes, which any norm can be of.
const SQUARES: [(&str, &[Square]); 2] = [("resnet50", &RESNET50), ("sizes", &SIZES)];

/// The suite whose layers have norms of their own.
const TRANSFORMER: &str = "transformer";

/// Rows for each sample of a batch, and their length: the sequence and width of transformers, and rows that are few and long, or
/// many and short, as the heads of an attention have them. At batch 8, 32 MiB of float32, of the last 128.
const ROWS: [(usize, usize); 7] =
    [(4096, 256), (1024, 1024), (512, 2048), (256, 4096), (128, 8192), (8, 131_072), (131_072, 32)];

/// Channels and edge of the maps of a U-Net for diffusion whose latents are 64 × 64, at its three widths (Rombach et al.,
/// "High-Resolution Image Synthesis with Latent Diffusion Models", 2022), and the groups of its norms.
const UNET: [(usize, usize); 3] = [(320, 64), (640, 32), (1280, 16)];
pub const UNET_GROUPS: usize = 32;

/// Layer and RMS norm of transformers, and group norm of a U-Net with a quarter of the batch.
fn transformer(batch: usize) -> Vec<Layer> {
    let layer = |norm, dims: &[usize]| Layer { norm, dims: dims.to_vec(), times: 1 };
    let of_rows = |name| ROWS.map(|(rows, width)| layer(Norm::plain(name), &[rows * batch, width]));
    let of_maps = UNET.map(|(c, edge)| layer(Norm::group(UNET_GROUPS), &[batch.div_ceil(4), c, edge, edge]));
    of_rows(NormName::Layer).into_iter().chain(of_rows(NormName::Rms)).chain(of_maps).collect()
}

/// The layers of a named suite or of a file. Where shapes have no norms of their own, they are of these; else of all or, if any
/// are given, of these only.
pub fn load(suite: &str, batch: usize, norms: &[Norm]) -> Result<Vec<Layer>, Refusal> {
    if suite == TRANSFORMER {
        let mut layers = transformer(batch);
        layers.retain(|layer| norms.is_empty() || norms.iter().any(|norm| norm.name == layer.norm.name));
        if layers.is_empty() {
            return Err(
                format!("suite {suite:?} has no such --norm; its own are layer, rms and group").into()
            );
        }
        return Ok(layers);
    }
    let norms = if norms.is_empty() { &[Norm::BATCH][..] } else { norms };
    let of = |norm, shapes: &[(Vec<usize>, u32)]| -> Vec<Layer> {
        shapes.iter().map(|(dims, times)| Layer { norm, dims: dims.clone(), times: *times }).collect()
    };
    let shapes = shapes(suite, batch)?;
    Ok(norms.iter().flat_map(|&norm| of(norm, &shapes)).collect())
}

/// The shapes of a named suite or of a file.
fn shapes(suite: &str, batch: usize) -> Result<Vec<(Vec<usize>, u32)>, Refusal> {
    if let Some((_, layers)) = SQUARES.iter().find(|(name, _)| *name == suite) {
        return Ok(layers.iter().map(|&(c, edge, times)| (vec![batch, c, edge, edge], times)).collect());
    }
    let names = SQUARES.map(|(name, _)| name).join(", ");
    let text = std::fs::read_to_string(suite)
        .map_err(|error| format!("suite {suite:?} is none of {names}, {TRANSFORMER}, nor a file: {error}"))?;
    let shapes = text
        .lines()
        .enumerate()
        .filter_map(|(number, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let parsed = parse_line(line, batch).map_err(|e| format!("{suite}:{}: {e}", number + 1).into());
            (!line.is_empty()).then_some(parsed)
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    if shapes.is_empty() {
        return Err(format!("suite {suite:?} has no shapes").into());
    }
    Ok(shapes)
}

fn parse_line(line: &str, batch: usize) -> Result<(Vec<usize>, u32), String> {
    let (shape, times) = match line.split_once(char::is_whitespace) {
        Some((shape, times)) => {
            let digits = times.trim().strip_prefix('x').ok_or("expected xTIMES after the shape")?;
            let times: NonZeroU32 = digits.parse().map_err(|error| format!("{digits:?}: {error}"))?;
            (shape, times.get())
        }
        None => (line, 1),
    };
    let Dims(dims) = parse_shape(&format!("{batch},{shape}"))?;
    Ok((dims, times))
}

/// A shape with 2 to 5 axes.
pub fn parse_shape(text: &str) -> Result<Dims, String> {
    let dims = text
        .split(',')
        .map(|dim| usize::from_str(dim.trim()).map_err(|error| format!("{dim:?}: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    let shape = wgnorm::Shape::new(&dims).map_err(|error| error.to_string())?;
    if shape.rank() < 2 {
        return Err(format!("shape {shape} has one axis; 2 to 5 are needed"));
    }
    Ok(Dims(dims))
}

/// A shape as part of a name.
pub fn label(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resnet50_has_53_layers() {
        assert_eq!(load("resnet50", 8, &[]).unwrap().iter().map(|layer| layer.times).sum::<u32>(), 53);
    }

    #[test]
    fn sizes_double_from_64_kib_to_64_mib() {
        let bytes = |layer: &Layer| 4 * layer.dims.iter().product::<usize>();
        let sizes: Vec<_> = load("sizes", 8, &[]).unwrap().iter().map(bytes).collect();
        assert_eq!((sizes[0], *sizes.last().unwrap()), (64 << 10, 64 << 20));
        assert!(sizes.windows(2).all(|pair| pair[1] == 2 * pair[0]));
    }

    #[test]
    fn a_transformer_has_norms_of_its_own_and_other_suites_take_any() {
        let all = load(TRANSFORMER, 8, &[]).unwrap();
        let of = |name| all.iter().filter(|layer| layer.norm.name == name).collect::<Vec<_>>();
        assert_eq!(
            (of(NormName::Layer).len(), of(NormName::Rms).len(), of(NormName::Group).len()),
            (7, 7, 3)
        );
        assert_eq!(
            (of(NormName::Rms)[1].dims.as_slice(), of(NormName::Group)[0].dims[0]),
            (&[8192, 1024][..], 2)
        );
        assert!(all.iter().all(|layer| layer.norm.check_shape(&layer.dims).is_ok()));
        let rms = Norm::plain(NormName::Rms);
        assert_eq!(load(TRANSFORMER, 8, &[rms]).unwrap().len(), 7);
        assert!(load(TRANSFORMER, 8, &[Norm::BATCH]).is_err());
        let both = load("sizes", 8, &[rms, Norm::BATCH]).unwrap();
        assert_eq!((both.len(), both[0].norm, both[21].norm), (22, rms, Norm::BATCH));
    }

    #[test]
    fn lines_are_parsed_and_mistakes_told() {
        assert_eq!(parse_line("64,7,7 x3", 2), Ok((vec![2, 64, 7, 7], 3)));
        assert_eq!(parse_line("64", 2), Ok((vec![2, 64], 1)));
        for wrong in ["64,7,7 3", "64,x", "64,7,7 xx", "64,7,7 x0", "1,2,3,4,5,6"] {
            assert!(parse_line(wrong, 2).is_err(), "{wrong}");
        }
        assert!(parse_shape("1,5").is_ok() && parse_shape("5").is_err());
    }
}
