//! What layer and RMS norm normalize: trailing axes of x, perhaps in groups, or any axes, with gamma and beta for each of their places.

use super::axes::{Arrangement, Axes};
use super::norm::Kind;
use super::norm::sealed::Sealed;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::engine::tensor::Tensor;
use crate::pass::spec::Extra;
use crate::plan::Slices;

/// A kind of norm whose parameters are those of places: that of [`LayerNorm`](crate::LayerNorm) and of [`RmsNorm`](crate::RmsNorm).
pub trait OfPlaces: Kind + From<Places> {}

/// The axes whose places share a statistic.
#[derive(Clone, Copy, Debug)]
pub enum Places {
    /// The last ones, of these lengths, in groups of neighbouring places that are normalized each for itself.
    Trailing { shape: Shape, groups: u64 },
    /// Any, in any order, of these lengths.
    Over { axes: Axes, shape: Shape },
}

impl Places {
    /// # Errors
    /// [`Error::Rank`], [`Error::Channels`] for no values, [`Error::Groups`].
    pub fn trailing(shape: &[usize], groups: usize) -> Result<Self> {
        let (shape, groups) = (some(shape)?, groups as u64);
        if groups == 0 || !shape.len().is_multiple_of(groups) {
            return Err(Error::Groups { channels: shape.len(), groups });
        }
        Ok(Self::Trailing { shape, groups })
    }

    /// # Errors
    /// [`Error::Rank`] unless there is a length for each axis, [`Error::Channels`] for no values.
    pub fn over(axes: &[usize], lengths: &[usize]) -> Result<Self> {
        if axes.len() != lengths.len() {
            let (what, expected) = ("a list of the lengths of axes", "that of the list of axes");
            return Err(Error::Rank { what, expected, got: lengths.len() });
        }
        // Of no axes there is one place.
        let shape = if lengths.is_empty() { Shape::per_channel(1) } else { some(lengths)? };
        Ok(Self::Over { axes: Axes::new(axes)?, shape })
    }

    /// That of gamma and beta.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Trailing { shape, .. } | Self::Over { shape, .. } => *shape,
        }
    }

    pub fn groups(&self) -> u64 {
        match self {
            Self::Trailing { groups, .. } => *groups,
            Self::Over { .. } => 1,
        }
    }

    /// Whether slices are rows, wherever x has them.
    pub fn are_rows(&self) -> bool {
        matches!(self, Self::Trailing { .. })
    }

    /// The slices of x.
    pub fn slices(&self, layer: &'static str, x: &Tensor, modulated: bool) -> Result<Slices> {
        let refused = |why| Err(Error::Unsupported { layer, what: Extra::Modulation.name(), why });
        match *self {
            Self::Trailing { shape, groups: 1 } => rows_of(x, shape, modulated),
            Self::Trailing { .. } if modulated => refused("its rows are in groups"),
            Self::Trailing { shape, groups } => {
                let rows = rows_of(x, shape, false)?;
                Ok(Slices::groups_of_rows(rows.slices(), shape.len(), groups))
            }
            Self::Over { .. } if modulated => {
                refused("it is over any axes; a layer over trailing axes has parameters of samples")
            }
            Self::Over { axes, shape } => {
                let slices = axes.slices(x.shape())?;
                let mut expected = x.shape().dims().to_vec();
                axes.get().iter().zip(shape.dims()).for_each(|(&axis, &len)| expected[axis] = len);
                let expected = Shape::new(&expected)?;
                if expected != x.shape() {
                    return Err(Error::Shape { what: "x", expected, got: x.shape() });
                }
                Ok(slices.with_parameters_within())
            }
        }
    }

    /// How x, or the parameters, are put into another order for a layer whose walk is known, where they must be.
    pub fn arrangement<K: Sealed + 'static>(&self, x: Shape, of: impl Fn(Self) -> K) -> Option<Arrangement> {
        let Self::Over { axes, shape } = *self else { return None };
        // Where x is arranged anyway, its axes are in the order of the parameters'.
        let of_rows = |_| of(Self::Trailing { shape, groups: 1 });
        axes.arrangement(x, of_rows).or_else(|| {
            let ranks = axes.reorder(x).then(|| axes.ranks())?;
            let shape = ranks.inverse().permute(shape).ok()?;
            let kind = Box::new(of(Self::Over { axes: axes.ascending(), shape }));
            Some(Arrangement { kind, x: None, parameters: Some(ranks.inverse()) })
        })
    }
}

/// A shape of parameters, of which there must be some.
pub(super) fn some(shape: &[usize]) -> Result<Shape> {
    let shape = Shape::new(shape)?;
    if shape.len() == 0 {
        return Err(Error::Channels { what: "a layer", expected: 1, got: 0 });
    }
    Ok(shape)
}

/// Rows of the trailing axes.
pub(super) fn rows_of(x: &Tensor, normalized: Shape, modulated: bool) -> Result<Slices> {
    let shape = x.shape();
    let dims = shape.dims();
    let Some(leading) = dims.len().checked_sub(normalized.rank()) else {
        return Err(Error::Rank {
            what: "x",
            expected: "no less than that of the normalized shape",
            got: dims.len(),
        });
    };
    if dims[leading..] != *normalized.dims() {
        let mut expected = dims.to_vec();
        expected[leading..].copy_from_slice(normalized.dims());
        return Err(Error::Shape { what: "x", expected: Shape::new(&expected)?, got: x.shape() });
    }
    if modulated && leading == 0 {
        return Err(Error::Rank {
            what: "x",
            expected: "more than that of the normalized shape",
            got: dims.len(),
        });
    }
    let rows = dims[..leading].iter().map(|&dim| dim as u64).product();
    Ok(Slices::rows(rows, normalized.len(), modulated.then(|| dims[0] as u64)))
}
