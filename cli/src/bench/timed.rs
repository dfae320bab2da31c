//! What is checked and timed, of batch norm and of the other norms alike.

use wgnorm::{Context, Layout, Plan, Traffic};

use super::case::{self, Kernels, Measured};
use super::measure::Meter;
use super::suite::Layer;
use super::variant::Variant;
use super::{BenchOp, Cache, curve, data, family};
use crate::Refusal;

/// An operation that is prepared.
pub trait Timed {
    fn traffic(&self) -> Traffic;

    /// Bytes of the tensors of the shape of x that it binds: it moves each at least once, and in place two are one.
    fn tensor_bytes(&self) -> u64;

    /// Bytes that it allocates for partial results.
    fn workspace_bytes(&self) -> u64;

    fn plan(&self) -> Option<&Plan>;

    fn kernels(&self) -> Vec<String>;

    /// Runs the operation once and compares every output with the reference. Returns the worst error as a fraction of
    /// its bound, or what is wrong.
    fn check(&mut self) -> Result<f64, String>;

    /// As [`Self::check`] for the baselines, as far as there are any.
    fn check_baselines(&mut self, kernels: &mut Kernels) -> Result<(), String>;

    /// Times the operation, a copy of the same size, and the baselines if there are any.
    fn time(&mut self, kernels: &mut Kernels, meter: &mut Meter<'_>) -> Result<Measured, Refusal>;
}

/// Inputs and expectations of a shape.
pub enum Data {
    Batch(data::Data),
    Family(family::Data),
    Curve(curve::Data),
}

/// Tensors of a shape in a layout and cache state.
pub enum Cases<'c> {
    Batch(Box<case::Cases<'c>>),
    Family(Box<family::Cases<'c>>),
    Curve(Box<curve::Cases<'c>>),
}

impl Data {
    pub fn new(layer: &Layer, variant: Variant) -> wgnorm::Result<Self> {
        if let Some(curve) = layer.norm.curve() {
            return curve::Data::new(curve, &layer.dims, variant).map(Self::Curve);
        }
        match layer.norm.is_batch() {
            true => data::Data::new(&layer.dims, variant).map(Self::Batch),
            false => Ok(Self::Family(family::Data::new(layer.norm, &layer.dims, variant))),
        }
    }
}

impl<'c> Cases<'c> {
    pub fn new(context: &'c Context, data: &'c Data, layout: Layout, cache: Cache) -> Result<Self, String> {
        match data {
            Data::Batch(data) => Ok(Self::Batch(Box::new(case::Cases::new(context, data, layout, cache)?))),
            Data::Family(data) => {
                Ok(Self::Family(Box::new(family::Cases::new(context, data, layout, cache)?)))
            }
            Data::Curve(data) => Ok(Self::Curve(Box::new(curve::Cases::new(context, data, layout, cache)?))),
        }
    }

    /// Sets of tensors that are rotated over.
    pub fn sets(&self) -> usize {
        match self {
            Self::Batch(cases) => cases.sets(),
            Self::Family(cases) => cases.sets(),
            Self::Curve(cases) => cases.sets(),
        }
    }

    /// Prepares an operation.
    pub fn case(&mut self, op: BenchOp) -> Result<Box<dyn Timed + '_>, String> {
        match self {
            Self::Batch(cases) => Ok(Box::new(cases.case(op)?)),
            Self::Family(cases) => Ok(Box::new(cases.case(op)?)),
            Self::Curve(cases) => Ok(Box::new(cases.case(op)?)),
        }
    }
}
