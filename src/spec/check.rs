//! What a problem must be, so that there is a result that it must have.

use super::{AsInt8, Norm, Spec, Statistics, Wanted};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::base::gate::GateOrder;
use crate::base::shape::{Layout, Shape};
use crate::base::variance::RunningVariance;
use crate::family::Epsilon;

impl Spec {
    /// Says what is wrong with it: what no layer could be made for, or the parts that do not go together. Limits of a device are not its matter.
    ///
    /// # Errors
    /// [`Error::Spec`]; [`Error::Rank`], [`Error::TooLarge`] for a shape that no tensor has; [`Error::Slope`];
    /// [`Error::Tuning`] for what cannot be forced.
    pub fn check(&self) -> Result<()> {
        Shape::new(&self.shape)?;
        self.tuning.check()?;
        let wrong = self
            .wrong_shape()
            .or_else(|| self.wrong_segments())
            .or_else(|| self.wrong_parameters())
            .or_else(|| self.wrong_choices());
        match wrong {
            Some(reason) => Err(Error::Spec { reason }),
            None => match self.activation.slope().is_finite() {
                true => Ok(()),
                false => Err(Error::Slope { got: self.activation.slope() }),
            },
        }
    }

    fn wrong_shape(&self) -> Option<String> {
        let (shape, rank) = (&self.shape, self.shape.len());
        let axes = |axes: &[usize]| {
            let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
            (axes.is_empty() || !ascending || axes.last().is_some_and(|&axis| axis >= rank))
                .then(|| format!("axes {axes:?} of {rank}: expected some of them, in ascending order"))
        };
        if let Some(over) = &self.axes {
            if !matches!(self.norm, Norm::Layer(1) | Norm::Rms(1)) {
                let name = self.norm.name();
                return Some(format!(
                    "{name} takes no axes: expected layer or RMS norm, without a number of trailing ones"
                ));
            }
            let twice = over.iter().enumerate().any(|(i, axis)| over[..i].contains(axis));
            if twice || over.iter().any(|&axis| axis >= rank) {
                return Some(format!("axes {over:?} of {rank}: expected some of them, or none, each once"));
            }
        }
        match &self.norm {
            Norm::Layer(over) | Norm::Rms(over) => (*over == 0 || *over > rank)
                .then(|| format!("{over} trailing axes of {rank}: expected 1 to {rank}")),
            Norm::MeanVariance(over) | Norm::L2(over) => axes(over),
            Norm::Weight | Norm::WeightStandardization | Norm::Scale => {
                (rank < 2).then(|| format!("a shape of {rank} axes: expected 2 to 5"))
            }
            Norm::Spectral(axis, _) if rank < 2 || *axis >= rank || self.elements() == 0 => {
                Some(format!("rows along axis {axis} of {shape:?}: expected one of 2 to 5 axes, and values"))
            }
            _ if rank < 2 => Some(format!("a shape of {rank} axes: expected N, C and up to 3 more")),
            Norm::Switchable(variance) => {
                let least = if *variance == RunningVariance::Unbiased { 2 } else { 1 };
                let values = shape[2..].iter().try_fold(1_usize, |all, &dim| all.checked_mul(dim));
                (values.is_none_or(|values| values < least) || shape[..2].contains(&0))
                    .then(|| format!("instances of {shape:?}: expected {least} or more values of each"))
            }
            Norm::Group(groups) => (*groups == 0 || !shape[1].is_multiple_of(*groups))
                .then(|| format!("{groups} groups do not divide {} channels", shape[1])),
            _ => None,
        }
        .or_else(|| match &self.statistics {
            Statistics::Synchronised(samples) => {
                let all = samples.iter().try_fold(0_usize, |all, &samples| all.checked_add(samples));
                (samples.is_empty() || all != Some(shape[0]))
                    .then(|| format!("shards of {samples:?} samples: expected {} in all", shape[0]))
            }
            Statistics::Accumulated(parts) => (*parts == 0 || *parts > shape[0])
                .then(|| format!("{parts} micro-batches of {} samples: expected 1 to as many", shape[0])),
            Statistics::Ghost(size) => {
                (*size == 0).then(|| "ghost batches of 0 samples: expected 1 or more".to_owned())
            }
            Statistics::Sequence(steps) => (*steps == 0).then(|| "0 steps: expected 1 or more".to_owned()),
            _ => None,
        })
    }

    fn wrong_segments(&self) -> Option<String> {
        let Self { norm, shape, .. } = self;
        let name = norm.name();
        if self.segments.is_none() && *norm != Norm::Graph {
            return None;
        }
        if let Some(lengths) = &self.segments {
            let rows = lengths.iter().try_fold(0_usize, |rows, &length| rows.checked_add(length));
            if rows != Some(shape[0]) {
                return Some(format!("segments of {rows:?} rows: expected {} in all", shape[0]));
            }
        }
        let takes = matches!(norm, Norm::Layer(1) | Norm::Group(_) | Norm::Instance | Norm::Graph);
        if !takes || shape.len() != 2 || self.groups != 1 || self.axes.is_some() {
            return Some(format!(
                "{name} of {} axes in segments: expected instance, group, layer norm or GraphNorm of [rows, C]",
                shape.len()
            ));
        }
        let fused = self.residual || self.sum || self.modulated || self.gate.is_some();
        if fused || self.mask.is_some() || self.int8.is_some() || self.has_second() {
            return Some(format!(
                "{name} in segments: expected norm and activation alone, forward or backward"
            ));
        }
        None
    }

    fn wrong_parameters(&self) -> Option<String> {
        let Self { norm, affine, dtype, parameters, .. } = self;
        let name = norm.name();
        if !norm.allows(*affine) {
            return Some(format!("{name} does not have {affine:?} of gamma and beta"));
        }
        if self.unit_offset && (!norm.is_of_slices() || norm.tracks()) {
            return Some(format!("gamma of {name} is not stored as its distance from 1"));
        }
        let grouped = matches!(norm, Norm::Layer(_) | Norm::Rms(_)) && !self.modulated && self.mask.is_none();
        let grouped = grouped && self.axes.is_none();
        let divides = || {
            let places =
                self.parameter_shape().iter().try_fold(1, |places: usize, &dim| places.checked_mul(dim));
            self.groups > 0 && places.is_some_and(|places| places.is_multiple_of(self.groups))
        };
        if self.groups != 1 && !(grouped && divides()) {
            return Some(format!(
                "{} groups of rows: expected layer or RMS norm, not modulated or masked, and a divisor of the places of a row",
                self.groups
            ));
        }
        if self.modulated && !(norm.can_be_modulated() && self.axes.is_none()) {
            return Some(format!("parameters of each sample: {name} does not take them"));
        }
        if *parameters != DType::F32 && parameters != dtype {
            return Some(format!(
                "parameters of {parameters} beside tensors of {dtype}: expected f32 or that type"
            ));
        }
        if self.eps == Epsilon::OfType && !norm.is_of_slices() {
            return Some(format!("eps of the type: {name} takes a number"));
        }
        None
    }

    fn wrong_choices(&self) -> Option<String> {
        let Self { norm, statistics, .. } = self;
        let name = norm.name();
        let own = *statistics == Statistics::Own;
        let spectral = norm.spectral().is_some();
        let switchable = matches!(norm, Norm::Switchable(_));
        let can_be_masked = (!norm.is_of_slices() || self.is_of_rows()) && !spectral && !switchable;
        for (is, what, can) in [
            (self.layout != Layout::ChannelsFirst, "a layout", norm.has_channels()),
            (self.residual, "a residual", !spectral),
            (self.activation != Activation::None, "an activation", !spectral),
            (self.wanted != Wanted::All, "gradients once more", !spectral),
            (self.sum, "a sum before it", norm.is_of_slices() && !norm.tracks()),
            (self.int8.is_some() && self.has_backward(), "int8 and a backward pass", false),
            (self.int8.is_some() && self.in_place, "int8 over x", false),
            (
                self.int8.is_some(),
                "a y of int8",
                norm.is_of_slices() && !norm.tracks() || *norm == Norm::FrozenBatch,
            ),
            (self.int8 == Some(AsInt8::PerRow), "scales of rows", self.is_of_rows() && self.groups == 1),
            (self.gate.is_some(), "a gate", norm.is_of_slices() && !norm.tracks()),
            (self.gate.is_some() && self.residual, "a gate beside a residual", false),
            (self.gate == Some(GateOrder::GateFirst) && self.sum, "a gate before a sum", false),
            (self.mask.is_some(), "a mask", can_be_masked && own && self.mask != Some(0)),
            (!own, "statistics from elsewhere", *norm == Norm::Batch),
            (
                self.wanted != Wanted::All,
                "gradients once more without a backward pass",
                self.has_backward() || self.has_second() && self.wanted == Wanted::Added,
            ),
            (self.has_second(), "derivatives", self.has_derivatives()),
        ] {
            if is && !can {
                return Some(format!("{name} does not take {what}"));
            }
        }
        let alone =
            !(self.residual || self.in_place || self.sum) && self.gate.is_none() && self.mask.is_none();
        if self.has_second() && !(alone && self.int8.is_none() && own) {
            return Some(
                "derivatives are those of norm and activation alone, with statistics of the batch".to_owned(),
            );
        }
        let plain = matches!(statistics, Statistics::Own | Statistics::Given | Statistics::Renorm(..));
        let fused = self.residual || self.in_place || self.wanted != Wanted::All;
        if !plain && fused {
            return Some(
                "a residual, work in place and gradients once more go with statistics of one batch"
                    .to_owned(),
            );
        }
        None
    }

    /// Whether the norm has derivatives of its passes.
    fn has_derivatives(&self) -> bool {
        let of_slices = self.norm.is_of_slices() && !self.norm.tracks();
        of_slices || matches!(self.norm, Norm::Batch | Norm::FrozenBatch)
    }
}
