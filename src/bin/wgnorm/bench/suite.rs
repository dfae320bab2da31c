//! What is benchmarked: the batch-norm layers of a network, or shapes from a file or the command line.

use std::num::NonZeroU32;
use std::str::FromStr;

use clap::ValueEnum;

use crate::Refusal;

/// An operation of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum BenchOp {
    TrainForward,
    TrainBackward,
    Inference,
    FrozenBackward,
}

impl BenchOp {
    pub const ALL: [Self; 4] =
        [Self::TrainForward, Self::TrainBackward, Self::Inference, Self::FrozenBackward];

    pub const fn name(self) -> &'static str {
        match self {
            Self::TrainForward => "train_forward",
            Self::TrainBackward => "train_backward",
            Self::Inference => "inference",
            Self::FrozenBackward => "frozen_backward",
        }
    }

    /// Whether it uses running statistics instead of the batch's.
    pub const fn is_frozen(self) -> bool {
        matches!(self, Self::Inference | Self::FrozenBackward)
    }

    pub const fn is_forward(self) -> bool {
        matches!(self, Self::TrainForward | Self::Inference)
    }
}

/// A shape and how often the network has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
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

/// The built-in suites.
const SUITES: [(&str, &[Square]); 2] = [("resnet50", &RESNET50), ("sizes", &SIZES)];

/// The layers of a named suite or of a file.
pub fn load(suite: &str, batch: usize) -> Result<Vec<Layer>, Refusal> {
    if let Some((_, layers)) = SUITES.iter().find(|(name, _)| *name == suite) {
        let layer = |&(c, edge, times): &Square| Layer { dims: vec![batch, c, edge, edge], times };
        return Ok(layers.iter().map(layer).collect());
    }
    let names = SUITES.map(|(name, _)| name).join(", ");
    let text = std::fs::read_to_string(suite)
        .map_err(|error| format!("suite {suite:?} is none of {names}, nor a file: {error}"))?;
    let layers = text
        .lines()
        .enumerate()
        .filter_map(|(number, line)| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let parsed = parse_line(line, batch).map_err(|e| format!("{suite}:{}: {e}", number + 1).into());
            (!line.is_empty()).then_some(parsed)
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    if layers.is_empty() {
        return Err(format!("suite {suite:?} has no shapes").into());
    }
    Ok(layers)
}

fn parse_line(line: &str, batch: usize) -> Result<Layer, String> {
    let (shape, times) = match line.split_once(char::is_whitespace) {
        Some((shape, times)) => {
            let digits = times.trim().strip_prefix('x').ok_or("expected xTIMES after the shape")?;
            let times: NonZeroU32 = digits.parse().map_err(|error| format!("{digits:?}: {error}"))?;
            (shape, times.get())
        }
        None => (line, 1),
    };
    let Dims(dims) = parse_shape(&format!("{batch},{shape}"))?;
    Ok(Layer { dims, times })
}

/// A shape `N,C,…` with 2 to 5 axes, none of them empty.
pub fn parse_shape(text: &str) -> Result<Dims, String> {
    let dims = text
        .split(',')
        .map(|dim| usize::from_str(dim.trim()).map_err(|error| format!("{dim:?}: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    let shape = wgnorm::Shape::new(&dims).map_err(|error| error.to_string())?;
    let view = shape.channels(wgnorm::Layout::ChannelsFirst).map_err(|error| error.to_string())?;
    if view.count() < 2 {
        return Err(format!("shape {shape} has fewer than 2 values per channel"));
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
        assert_eq!(load("resnet50", 8).unwrap().iter().map(|layer| layer.times).sum::<u32>(), 53);
    }

    #[test]
    fn sizes_double_from_64_kib_to_64_mib() {
        let bytes = |layer: &Layer| 4 * layer.dims.iter().product::<usize>();
        let sizes: Vec<_> = load("sizes", 8).unwrap().iter().map(bytes).collect();
        assert_eq!((sizes[0], *sizes.last().unwrap()), (64 << 10, 64 << 20));
        assert!(sizes.windows(2).all(|pair| pair[1] == 2 * pair[0]));
    }

    #[test]
    fn lines_are_parsed_and_mistakes_told() {
        assert_eq!(parse_line("64,7,7 x3", 2), Ok(Layer { dims: vec![2, 64, 7, 7], times: 3 }));
        assert_eq!(parse_line("64", 2), Ok(Layer { dims: vec![2, 64], times: 1 }));
        for wrong in ["64,7,7 3", "64,x", "64,7,7 xx", "64,7,7 x0", "1,2,3,4,5,6"] {
            assert!(parse_line(wrong, 2).is_err(), "{wrong}");
        }
        assert!(parse_shape("1,5").is_err() && parse_shape("5").is_err());
    }
}
