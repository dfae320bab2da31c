//! Which modules a variant is made of.
//!
//! Shaders import what they use by paths such as `package::activation`, for which there is no file: what such a path stands for is decided
//! here, by the variant. `package::tensors::x` is an instance of a module of `shaders/tensor/`.

use super::{
    ActivationKind, Derivative, Int8Kind, Kernel, Monoid, OwnStep, Pointwise, StatisticsFrom, Variant,
    WALKED_INPUTS,
};
use crate::base::curve::Curve;
use crate::base::dtype::DType;
use crate::base::gate::GateOrder;
use crate::engine::custom;
use crate::engine::slot::Slot;
use crate::plan::{AffineOf, WalkKind};
use crate::wesl::{Choice, Instance};

/// Values that are read: per channel, per place, or of all slices.
const PARAMETERS: [Slot; 6] =
    [Slot::Gamma, Slot::Beta, Slot::Alpha, Slot::Shift, Slot::GammaTangent, Slot::BetaTangent];
/// Those that lie beside each other where kernels differentiate, in the order of shaders/fold/tangents.wesl.
const PACKED: [Slot; 4] = [Slot::Gamma, Slot::Beta, Slot::GammaTangent, Slot::BetaTangent];
const PARAMETER_GRADIENTS: [Slot; 4] = [Slot::Dgamma, Slot::Dbeta, Slot::Dalpha, Slot::Dshift];
const OUTPUTS: [Slot; 5] = [Slot::Y, Slot::Dx, Slot::DResidual, Slot::Sum, Slot::YTangent];

impl Variant {
    /// The module of the entry point.
    pub(super) const fn entry_module(&self) -> &'static str {
        match self.kernel {
            Kernel::ReduceMoments => "reduce/moments",
            Kernel::ReduceSquares => "reduce/squares",
            Kernel::ReduceGradients { .. } => "reduce/gradients",
            Kernel::ReduceRowGradients { .. } => "reduce/row_gradients",
            Kernel::ReduceSecond | Kernel::ReduceProduct => "reduce/sums",
            Kernel::FoldDirection { .. } => "fold/direction",
            Kernel::FoldTotal(_) | Kernel::FoldGroups => "fold/total",
            Kernel::FoldTangents(_) => "fold/tangents",
            Kernel::FoldSecond => "fold/second",
            Kernel::FoldMixture { .. } => "fold/mixture",
            Kernel::FoldMixtureSums => "fold/mixture_sums",
            Kernel::FoldMixtureMeans => "fold/mixture_means",
            Kernel::FoldMerge(_) => "fold/merge",
            Kernel::FoldNodes(_) => "fold/nodes",
            Kernel::FoldGradients => "fold/gradients",
            Kernel::FoldRecords(_) => "fold/records_alone",
            Kernel::FoldMarks => "fold/marks",
            Kernel::FoldStatistics(_) => "fold/statistics",
            Kernel::FoldMeans { .. } => "fold/means_alone",
            Kernel::MapForward(_) => "map/forward",
            Kernel::MapInt8(_) => "map/int8",
            Kernel::MapBackward { .. } => "map/backward",
            Kernel::MapCopy => "map/copy",
            Kernel::MapPermute => "map/permute",
            Kernel::ResidentForward(_) => "resident/forward",
            Kernel::ResidentBackward(_) => "resident/backward",
            Kernel::FoldCurve => "curve/fold_gradients",
            Kernel::FoldAlpha => "curve/fold_alpha",
            Kernel::Own { step: OwnStep::Reduce, .. } => "reduce/own",
            Kernel::Own { step: OwnStep::Fold, .. } => "fold/own",
            Kernel::Own { step: OwnStep::Map, .. } => "map/own",
        }
    }

    /// What stands for the modules that its own imports name.
    pub(super) fn choice(&self) -> Choice {
        let mut choice = Choice::default();
        self.choose_words(&mut choice);
        self.choose_walk(&mut choice);
        self.choose_elements(&mut choice);
        self.choose_statistics(&mut choice);
        self.choose_tensors(&mut choice);
        choice
    }

    fn choose_words(&self, choice: &mut Choice) {
        let wide = self.width == 4;
        choice.feature("wide", wide);
        choice.replace("word", if wide { "lib/word_f32x4" } else { "lib/word_f32x1" });
        choice.replace(
            "storage",
            match (self.dtype, wide) {
                (DType::F32 | DType::I8, _) => "lib/storage_f32",
                (_, true) => "lib/storage_half_x4",
                (_, false) => "lib/storage_half_x1",
            },
        );
        let half = if self.parameters == DType::F32 { self.dtype } else { self.parameters };
        choice.replace(
            "half",
            match half {
                DType::F32 | DType::F16 | DType::I8 => "lib/f16",
                DType::Bf16 => "lib/bf16",
            },
        );
        choice.feature("packed", self.packed_f16);
    }

    fn choose_walk(&self, choice: &mut Choice) {
        // A sum needs no statistics.
        let writes_words = self.kernel.writes_words() || self.outputs().iter().any(|slot| *slot != Slot::Sum);
        let columns = self.walk == WalkKind::Columns;
        // What is written where a run ends inside of a word needs the statistics of two slices.
        let pairs = !columns && self.edges && writes_words;
        choice.feature("columns", columns);
        choice.feature("pairs", pairs);
        choice.feature("single", if columns { self.width == 1 } else { !pairs });
        choice.replace("walk", if columns { "walk/columns" } else { "walk/segments" });
        choice.replace(
            "per",
            match (columns, pairs) {
                (true, _) => "walk/per_component",
                (false, true) => "walk/per_pair",
                (false, false) => "walk/per_slice",
            },
        );
        choice.feature("ragged", self.pointwise.ragged);
        choice.feature("mean_scale", self.pointwise.mean_scale);
        choice.feature("unbiased", self.pointwise.unbiased);
        choice.feature("running", self.kernel == Kernel::FoldMixture { running: true });
        let strip = Instance::from("walk/strip").with("STRIP", format!("{}u", self.strip));
        let strip = strip.with("DEPTH", format!("{}u", self.depth));
        choice.feature("ahead", self.depth > 1);
        choice.replace("walk/strip", strip.with("HELD", format!("{}u", self.held)));
        choice.feature("single_rows", self.single_rows);
    }

    fn choose_elements(&self, choice: &mut Choice) {
        let Pointwise {
            activation,
            residual,
            gate,
            without_beta,
            d_residual,
            from_y,
            masked,
            marked,
            affine,
            sum,
            d_sum,
            folded,
            int8,
            derivative,
            y_tangent,
            ..
        } = self.pointwise;
        let tangent = derivative.is_some();
        choice.feature("tangent", tangent);
        choice.feature("second", derivative == Some(Derivative::Second));
        choice.feature("y_tangent", y_tangent);
        choice.feature("bent", tangent && activation.bends());
        let from = self.kernel.statistics();
        let emitted = match from {
            StatisticsFrom::RankOne => "map/rank_one",
            _ if tangent => "map/tangents",
            _ => "map/dx",
        };
        choice.replace("emitted", emitted);
        let product = self.kernel == Kernel::ReduceProduct;
        choice.replace("sums", if product { "lib/product_sums" } else { "lib/second_sums" });
        choice.replace("activation", &*format!("activation/{}", activation.module()));
        if let Some(key) = activation.custom() {
            // Under names of its own, so that none is in the way of others.
            let own = Instance::from(&*custom::module_of(key)).named("custom_activation");
            choice.replace("custom", own);
        }
        let gate_first = gate == Some(GateOrder::GateFirst);
        choice.feature("activated", activation != ActivationKind::NONE && gate.is_none());
        choice.feature("residual", residual);
        choice.feature("added", residual && gate.is_none());
        choice.feature("gate_last", gate == Some(GateOrder::NormFirst));
        choice.feature("gate_first", gate_first);
        let alone = product || from == StatisticsFrom::RankOne;
        let without_beta = without_beta || alone || gate_first && self.kernel.reads_gradient();
        choice.feature("without_beta", without_beta);
        // That holds what is normalized.
        choice.feature("gate_in_x", gate_first && !matches!(self.kernel, Kernel::ResidentForward(_)));
        choice.feature("d_residual", d_residual);
        choice.feature("masked", masked);
        choice.feature("marked", marked);
        choice.feature("of_place", affine == AffineOf::Place);
        choice.feature("of_row", affine == AffineOf::Row);
        choice.feature("folded", folded);
        choice.feature("sum", sum);
        choice.feature("per_row", int8 == Some(Int8Kind::PerRow));
        choice.feature("d_sum", d_sum);
        choice.feature("gradient", self.kernel.reads_gradient() && derivative != Some(Derivative::Tangent));
        choice.replace(
            "affine",
            match affine {
                AffineOf::Slice => "affine/of_slice",
                AffineOf::Place => "affine/of_place",
                AffineOf::Row => "affine/of_row",
            },
        );
        let curve = self.kernel.statistics().curve();
        choice.replace("curve", if curve == Some(Curve::Erf) { "curve/erf" } else { "curve/tanh" });
        choice.replace(
            "normalized",
            match (curve, from_y) {
                (Some(_), _) => "lib/from_curve",
                (None, true) => "lib/from_y",
                (None, false) => "lib/from_x",
            },
        );
    }

    fn choose_statistics(&self, choice: &mut Choice) {
        use StatisticsFrom::{Bare, Batch, Curve, FoldedCurve, Gradients, Means, MeansOfRow, Recorded};
        use StatisticsFrom::{RankOne, RecordedOfRow, Running, Saved, Slices};
        let (kernel, from) = (self.kernel, self.kernel.statistics());
        let of_places = kernel == Kernel::ResidentBackward(Recorded);
        choice.replace(
            "slice_statistics",
            match from {
                Batch | Slices => "fold/statistics",
                Saved | Gradients | FoldedCurve(_) => "fold/saved",
                Running => "fold/running",
                Recorded | RecordedOfRow | Means | MeansOfRow => "fold/recorded",
                Bare => "fold/bare",
                RankOne => "fold/rank_one",
                Curve(_) => "curve/of_parameters",
            },
        );
        choice.replace(
            "batch",
            match from {
                Slices if self.pointwise.uncentred => "fold/lengths",
                Slices => "fold/slices",
                _ => "fold/batch",
            },
        );
        choice.feature("uncentred", self.pointwise.uncentred);
        choice.feature("means", matches!(from, Means | MeansOfRow));
        choice.feature("of_rows", from.of_rows());
        choice.feature("gradients", from == Gradients);
        choice.feature("renorm", self.pointwise.renorm || kernel == Kernel::FoldStatistics(Batch));

        // What dx goes through.
        choice.feature("weighted", of_places || matches!(from, Means | MeansOfRow));
        choice.feature("curve", from.curve().is_some());
        let of_batch = from == Gradients || kernel.is_resident();
        choice.feature("frozen", !(of_batch || from.has_means() || from.curve().is_some()));
        choice.feature("dx", kernel.writes_dx());
        choice.feature("sums", !(self.pointwise.masked && matches!(kernel, Kernel::MapBackward { .. })));
        choice.replace("turns", if of_places { "resident/of_slices" } else { "resident/of_channels" });

        choice.replace(
            "monoid",
            match kernel.monoid() {
                Monoid::Moments if self.pointwise.uncentred => "lib/squares",
                Monoid::Moments => "lib/moments",
                Monoid::Squares => "lib/squares",
                Monoid::GradientSums => "lib/gradient_sums",
                Monoid::CurveSums => "curve/sums",
                Monoid::Averages => "lib/slice_averages",
                Monoid::Own => "own",
            },
        );
        choice.feature("moments", kernel.monoid() == Monoid::Moments && !self.pointwise.uncentred);
        let of_curve = kernel.monoid() == Monoid::CurveSums;
        choice.replace("gradient_sums", if of_curve { "curve/sums" } else { "lib/gradient_sums" });
        choice.replace(
            "gradient_words",
            match self.pointwise.derivative {
                Some(_) => "lib/tangent_words",
                None if of_curve => "curve/words",
                None => "lib/gradient_words",
            },
        );
        choice.feature("shuffled", self.subgroup_size > 0);
        choice.replace("tree", if self.subgroup_size > 0 { "lib/tree_subgroups" } else { "lib/tree" });
        let of_groups = Kernel::FoldGroups == kernel || matches!(kernel, Kernel::FoldMeans { .. });
        choice.feature("groups", of_groups || kernel == Kernel::FoldStatistics(Slices));
        let of_channels = matches!(kernel, Kernel::FoldTangents(Saved | Running));
        choice.feature("of_channels", of_channels);
        choice.feature("given", matches!(kernel, Kernel::FoldDirection { given: true, .. }));
        choice.feature("of_all", matches!(kernel, Kernel::FoldDirection { of_all: true, .. }));
        choice.feature("times_gamma", kernel == Kernel::FoldMeans { times_gamma: true });
    }

    fn choose_tensors(&self, choice: &mut Choice) {
        choice.feature("shared", self.shared);
        choice.feature("atomic", self.dtype != DType::F32 && self.width == 1);
        choice.feature("half_parameters", self.parameters != DType::F32);
        choice.feature("parameter_words", self.parameter_words);
        let path = |slot: Slot| format!("tensors/{}", slot.name());
        let instance = |of: &str, slot: Slot| {
            let instance = Instance::from(of).named(slot.name()).with("SLOT", format!("{}u", slot as u32));
            instance.with("PLACE", format!("{}u", slot.place().unwrap_or_default()))
        };
        for (slot, over) in WALKED_INPUTS.into_iter().zip(self.through) {
            let input = match over {
                _ if slot == Slot::X && self.is_without_x() => instance("tensor/absent", slot),
                Some(output) => instance("tensor/over", slot).importing("tensor/output", &path(output)),
                None => instance("tensor/input", slot),
            };
            choice.replace(&path(slot), input);
        }
        let as_int8 = |slot: &Slot| *slot == Slot::Y && self.pointwise.int8.is_some();
        OUTPUTS
            .into_iter()
            .filter(as_int8)
            .for_each(|slot| choice.replace(&path(slot), instance("tensor/output_int8", slot)));
        let outputs = OUTPUTS.into_iter().filter(|slot| !as_int8(slot));
        outputs.for_each(|slot| choice.replace(&path(slot), instance("tensor/output", slot)));
        for (slots, module) in
            [(&PARAMETERS[..], "tensor/parameter"), (&PARAMETER_GRADIENTS, "tensor/parameter_gradient")]
        {
            slots.iter().for_each(|&slot| choice.replace(&path(slot), instance(module, slot)));
        }
        if self.kernel.statistics() == StatisticsFrom::RankOne {
            choice.replace(&path(Slot::Gamma), Instance::from("tensor/direction").named(Slot::Gamma.name()));
        }
        if self.pointwise.derivative.is_some() {
            for (component, slot) in PACKED.into_iter().enumerate() {
                let packed = Instance::from("tensor/packed")
                    .named(slot.name())
                    .with("COMPONENT", format!("{component}u"));
                choice.replace(&path(slot), packed);
            }
        }
    }

    /// Whether x makes no difference: dx through frozen statistics, of a z that is not activated.
    fn is_without_x(&self) -> bool {
        match self.kernel {
            Kernel::MapBackward { statistics: from, .. } => {
                self.pointwise.activation == ActivationKind::NONE
                    && self.pointwise.derivative.is_none()
                    && !from.has_means()
                    && from.curve().is_none()
            }
            _ => false,
        }
    }
}
