//! Axes of x in any order, the slices over them, and how x is arranged where no walk has these as they lie.

use super::norm::sealed::Sealed;
use crate::base::error::{Error, Result};
use crate::base::shape::Shape;
use crate::plan::Slices;

/// Axes in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    axes: [usize; Shape::MAX_RANK],
    count: usize,
}

/// How tensors and parameters are put into another order for a layer of another kind, which gives the same.
#[derive(Debug)]
pub struct Arrangement {
    /// The kind of that layer.
    pub kind: Box<dyn Sealed>,
    /// The axes of x, and of all that is like it, in the order that they are put into, unless that is their own.
    pub x: Option<Axes>,
    /// The same of gamma and beta.
    pub parameters: Option<Axes>,
}

impl Axes {
    /// # Errors
    /// [`Error::Rank`] for more than a tensor has.
    pub fn new(axes: &[usize]) -> Result<Self> {
        let count = axes.len();
        if count > Shape::MAX_RANK {
            return Err(Error::Rank { what: "a list of axes", expected: "at most 5", got: count });
        }
        let mut all = [0; Shape::MAX_RANK];
        all[..count].copy_from_slice(axes);
        Ok(Self { axes: all, count })
    }

    fn of(axes: impl Iterator<Item = usize>) -> Self {
        let mut all = Self { axes: [0; Shape::MAX_RANK], count: 0 };
        for axis in axes.take(Shape::MAX_RANK) {
            all.axes[all.count] = axis;
            all.count += 1;
        }
        all
    }

    /// The last axes of a shape.
    fn last(count: usize, rank: usize) -> Self {
        Self::of(rank - count..rank)
    }

    pub fn get(&self) -> &[usize] {
        &self.axes[..self.count]
    }

    pub fn ascending(mut self) -> Self {
        self.axes[..self.count].sort_unstable();
        self
    }

    /// Whether values are in another order where these are not in ascending order: axes of one value make no difference.
    pub fn reorder(&self, shape: Shape) -> bool {
        let long: Vec<_> = self.get().iter().filter(|&&axis| shape.dims()[axis] != 1).collect();
        !long.is_sorted()
    }

    /// Each of the axes by the place that it has among them in ascending order.
    pub fn ranks(&self) -> Self {
        let place = |&axis: &usize| self.get().iter().filter(|&&other| other < axis).count();
        Self::of(self.get().iter().map(place))
    }

    /// The order that undoes this one, of all axes.
    pub fn inverse(&self) -> Self {
        let place = |axis| self.get().iter().position(|&other| other == axis).unwrap_or(axis);
        Self::of((0..self.count).map(place))
    }

    /// A shape with its axes in this order.
    pub fn permute(&self, shape: Shape) -> Result<Shape> {
        let dims: Vec<_> = self.get().iter().map(|&axis| shape.dims()[axis]).collect();
        Shape::new(&dims)
    }

    /// All axes of a shape: the others in ascending order, then these.
    pub fn after_others(&self, shape: Shape) -> Self {
        let others = (0..shape.rank()).filter(|axis| !self.get().contains(axis));
        Self::of(others.chain(self.get().iter().copied()))
    }

    /// The slices of x over these axes: as they lie, or, where no walk has that, the rows that they are once these axes are the last.
    ///
    /// # Errors
    /// [`Error::Axes`] for axes that there are not, and for one that is named twice.
    pub fn slices(&self, shape: Shape) -> Result<Slices> {
        match Slices::over_axes(shape, self.get())? {
            Some(slices) => Ok(slices),
            None => {
                let of_slice = self.get().iter().map(|&axis| shape.dims()[axis] as u64).product::<u64>();
                Ok(Slices::rows(shape.len() / of_slice.max(1), of_slice, None))
            }
        }
    }

    /// As [`slices`](Self::slices), of some axes.
    ///
    /// # Errors
    /// The same, and [`Error::Axes`] for none.
    pub fn slices_of_some(&self, shape: Shape) -> Result<Slices> {
        if self.count == 0 {
            let why = "there are none";
            return Err(Error::Axes { axes: Vec::new(), shape, why });
        }
        self.slices(shape)
    }

    /// How x is arranged for a layer over its last axes, where no walk has these axes as they lie.
    pub fn arrangement<K: Sealed + 'static>(
        &self,
        shape: Shape,
        kind: impl Fn(Axes) -> K,
    ) -> Option<Arrangement> {
        let walked = Slices::over_axes(shape, self.get()).ok()?;
        let last = Self::last(self.count, shape.rank());
        let arranged = || Arrangement {
            kind: Box::new(kind(last)),
            x: Some(self.after_others(shape)),
            parameters: None,
        };
        walked.is_none().then(arranged)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::MeanVariance;
    use super::*;

    fn axes(axes: &[usize]) -> Axes {
        Axes::new(axes).unwrap()
    }

    #[test]
    fn an_order_and_its_inverse_cancel() {
        let shape = Shape::new(&[2, 3, 4, 5]).unwrap();
        let order = axes(&[2, 0]).after_others(shape);
        assert_eq!(order.get(), [1, 3, 2, 0]);
        let permuted = order.permute(shape).unwrap();
        assert_eq!(permuted.dims(), [3, 5, 4, 2]);
        assert_eq!(order.inverse().permute(permuted).unwrap(), shape);
    }

    #[test]
    fn parameters_are_ranked_among_themselves() {
        assert_eq!(axes(&[3, 1]).ranks().get(), [1, 0]);
        assert_eq!(axes(&[1, 4, 2]).ranks().get(), [0, 2, 1]);
        let shape = Shape::new(&[2, 3, 1, 5]).unwrap();
        assert!(axes(&[3, 1]).reorder(shape) && !axes(&[2, 1, 3]).reorder(shape));
    }

    #[test]
    fn only_what_no_walk_has_is_arranged() {
        let shape = Shape::new(&[2, 3, 4, 5]).unwrap();
        let arranged = |over: &[usize]| axes(over).arrangement(shape, |axes| MeanVariance { axes });
        assert!(arranged(&[1]).is_none() && arranged(&[0, 2, 3]).is_none());
        let alternating = arranged(&[1, 3]).unwrap();
        assert_eq!(alternating.x.unwrap().get(), [0, 2, 1, 3]);
        assert_eq!(format!("{:?}", alternating.kind), format!("{:?}", MeanVariance { axes: axes(&[2, 3]) }));
        assert_eq!(axes(&[1, 3]).slices(shape).unwrap(), Slices::rows(8, 15, None));
        assert!(Axes::new(&[0; 6]).is_err() && axes(&[]).slices_of_some(shape).is_err());
    }
}
