//! The norms of common models, as problems.

use clap::ValueEnum;
use wgnorm::spec::Passes;
use wgnorm::{Activation, DType, Layout, Spec};

use crate::Refusal;
use crate::bench::norm::{Norm, NormName};
use crate::bench::suite;

/// A model, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Model {
    /// ResNet-50 at batch 32
    Resnet50,
    /// Four of its shapes, with ReLU and a residual, in all element types
    Fused,
    /// The same at batch 2, plain
    SmallBatch,
    /// Layer and RMS norm of transformers at batch 8
    Transformer,
    /// Group norm with SiLU of a U-Net for diffusion, 2 samples
    Unet,
}

/// What of a suite is part of a model.
struct Part {
    suite: &'static str,
    batch: usize,
    norms: &'static [NormName],
    /// Which of its layers; all if empty.
    layers: &'static [usize],
    /// Batch norm is trained, and frozen.
    frozen: bool,
    layouts: &'static [Layout],
    /// Element types, with what is fused.
    variants: &'static [(DType, Activation, bool)],
}

const BOTH: &[Layout] = &[Layout::ChannelsFirst, Layout::ChannelsLast];

/// Of ResNet-50: large and small maps, the latter of 196 and 49 values.
const FOUR: &[usize] = &[0, 2, 8, 11];

const PLAIN: [(DType, Activation, bool); 3] = [
    (DType::F32, Activation::None, false),
    (DType::F16, Activation::None, false),
    (DType::Bf16, Activation::None, false),
];

impl Model {
    fn part(self) -> Part {
        match self {
            Self::Resnet50 => Part {
                suite: "resnet50",
                batch: 32,
                norms: &[NormName::Batch],
                layers: &[],
                frozen: true,
                layouts: BOTH,
                variants: &[(DType::F32, Activation::None, false)],
            },
            Self::Fused => Part {
                suite: "resnet50",
                batch: 32,
                norms: &[NormName::Batch],
                layers: FOUR,
                frozen: true,
                layouts: BOTH,
                variants: &[
                    (DType::F32, Activation::Relu, true),
                    (DType::F16, Activation::Relu, true),
                    (DType::Bf16, Activation::Relu, true),
                ],
            },
            Self::SmallBatch => Part {
                suite: "resnet50",
                batch: 2,
                norms: &[NormName::Batch],
                layers: FOUR,
                frozen: true,
                layouts: BOTH,
                variants: &[(DType::F32, Activation::None, false)],
            },
            Self::Transformer => Part {
                suite: "transformer",
                batch: 8,
                norms: &[NormName::Layer, NormName::Rms],
                layers: &[],
                frozen: false,
                layouts: &[Layout::ChannelsFirst],
                variants: &PLAIN,
            },
            Self::Unet => Part {
                suite: "transformer",
                batch: 8,
                norms: &[NormName::Group],
                layers: &[],
                frozen: false,
                layouts: &[Layout::ChannelsFirst],
                variants: &[
                    (DType::F32, Activation::Silu, false),
                    (DType::F16, Activation::Silu, false),
                    (DType::Bf16, Activation::Silu, false),
                ],
            },
        }
    }

    /// Its problems, each with both passes.
    pub fn specs(self) -> Result<Vec<Spec>, Refusal> {
        let part = self.part();
        let norms: Vec<Norm> = part.norms.iter().map(|&name| Norm::named(name, suite::UNET_GROUPS)).collect();
        let all = suite::load(part.suite, part.batch, &norms)?.into_iter().enumerate();
        let chosen = all.filter(|(at, _)| part.layers.is_empty() || part.layers.contains(at));
        let layers: Vec<suite::Layer> = chosen.map(|(_, layer)| layer).collect();
        let mut specs = Vec::new();
        for &(dtype, activation, residual) in part.variants {
            for (&layout, layer) in
                part.layouts.iter().flat_map(|layout| layers.iter().map(move |l| (layout, l)))
            {
                let mut spec = Spec::new(layer.norm.spec(&layer.dims), &layer.dims);
                (spec.dtype, spec.activation, spec.residual) = (dtype, activation, residual);
                (spec.layout, spec.passes) = (layout, Passes::Backward);
                specs.push(spec.clone());
                if part.frozen {
                    spec.norm = wgnorm::spec::Norm::FrozenBatch;
                    specs.push(spec);
                }
            }
        }
        Ok(specs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_norms_and_every_line_is_of_one_problem() {
        let specs = |model: Model| model.specs().unwrap_or_default();
        assert_eq!(specs(Model::Resnet50).len(), 12 * 2 * 2);
        assert_eq!((specs(Model::Fused).len(), specs(Model::SmallBatch).len()), (4 * 2 * 2 * 3, 4 * 2 * 2));
        assert_eq!((specs(Model::Transformer).len(), specs(Model::Unet).len()), (14 * 3, 3 * 3));
        let lines: Vec<String> = Model::value_variants()
            .iter()
            .flat_map(|&model| specs(model))
            .map(|spec| spec.to_string())
            .collect();
        let distinct: std::collections::HashSet<&String> = lines.iter().collect();
        assert_eq!(distinct.len(), lines.len());
        assert!(lines.iter().all(|line| line.parse::<Spec>().is_ok()));
    }
}
