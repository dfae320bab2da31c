//! Spectral norm in f64: the power iteration, σ, and the gradient through it. Twin of shaders/fold/direction.wesl and shaders/{fold,map}/rank_one.wesl.
//!
//! Source: Miyato, Kataoka, Koyama & Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, algorithm 1.

use crate::spectral::PowerOrder;

/// A weight as a matrix whose rows are those of one of its axes; columns lie in the order of the other axes.
#[derive(Clone, Debug)]
pub struct WeightMatrix<'a> {
    w: &'a [f64],
    rows: usize,
    columns: usize,
    /// Values between neighbours along the axis.
    inner: usize,
}

/// The vectors of a power iteration, and what they say.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// Of unit length, a value for each row.
    pub u: Vec<f64>,
    /// Of unit length, a value for each column.
    pub v: Vec<f64>,
    /// uᵀ·W·v.
    pub sigma: f64,
}

impl<'a> WeightMatrix<'a> {
    /// The values of a weight of a shape, row-major.
    ///
    /// # Panics
    /// Unless there is such an axis, and as many values as the shape says.
    pub fn new(w: &'a [f64], shape: &[usize], axis: usize) -> Self {
        assert_eq!(w.len(), shape.iter().product::<usize>(), "values of a weight of {shape:?}");
        let (rows, inner) = (shape[axis], shape[axis + 1..].iter().product());
        Self { w, rows, columns: w.len() / rows.max(1), inner }
    }

    /// Where a value is.
    pub fn index(&self, row: usize, column: usize) -> usize {
        let (before, behind) = (column / self.inner, column % self.inner);
        (before * self.rows + row) * self.inner + behind
    }

    /// Its row and column.
    pub fn place(&self, index: usize) -> (usize, usize) {
        let (before, rest) = (index / (self.rows * self.inner), index % (self.rows * self.inner));
        (rest / self.inner, before * self.inner + rest % self.inner)
    }

    /// W·v.
    pub fn times(&self, v: &[f64]) -> Vec<f64> {
        (0..self.rows).map(|h| (0..self.columns).map(|m| self.w[self.index(h, m)] * v[m]).sum()).collect()
    }

    /// Wᵀ·u.
    pub fn transposed_times(&self, u: &[f64]) -> Vec<f64> {
        (0..self.columns).map(|m| (0..self.rows).map(|h| self.w[self.index(h, m)] * u[h]).sum()).collect()
    }

    /// So many steps of the power iteration from u and v.
    ///
    /// ```
    /// use wgnorm::reference::spectral::WeightMatrix;
    /// use wgnorm::spectral::PowerOrder;
    /// // Singular values 3 and 1.
    /// let w = WeightMatrix::new(&[3.0, 0.0, 0.0, 1.0], &[2, 2], 0);
    /// let found = w.directions(&[0.6, 0.8], &[1.0, 0.0], PowerOrder::VFirst, 30, 1e-12);
    /// assert!((found.sigma - 3.0).abs() < 1e-9 && found.u[1].abs() < 1e-9);
    /// ```
    ///
    /// # Panics
    /// Unless u has a value for each row and v for each column.
    pub fn directions(
        &self,
        u: &[f64],
        v: &[f64],
        order: PowerOrder,
        iterations: u32,
        eps: f64,
    ) -> Directions {
        assert_eq!((u.len(), v.len()), (self.rows, self.columns), "values of u and v");
        let (mut u, mut v) = (u.to_vec(), v.to_vec());
        for _ in 0..iterations {
            if order == PowerOrder::UFirst {
                u = unit(self.times(&v), eps);
            }
            v = unit(self.transposed_times(&u), eps);
            if order == PowerOrder::VFirst {
                u = unit(self.times(&v), eps);
            }
        }
        let sigma = u.iter().zip(self.times(&v)).map(|(u, product)| u * product).sum();
        Directions { u, v, sigma }
    }

    /// The gradient of W from that of W / σ, with u and v as constants.
    pub fn backward(&self, dy: &[f64], of: &Directions) -> Vec<f64> {
        let inner = dy.iter().zip(self.w).map(|(dy, w)| dy * w / of.sigma).sum::<f64>();
        let gradient = |i: usize| {
            let (row, column) = self.place(i);
            (dy[i] - inner * of.u[row] * of.v[column]) / of.sigma
        };
        (0..dy.len()).map(gradient).collect()
    }
}

fn unit(values: Vec<f64>, eps: f64) -> Vec<f64> {
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    // Not `max`, which would drop NaN.
    let divisor = if length < eps { eps } else { length };
    values.into_iter().map(|value| value / divisor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, len: usize) -> Vec<f64> {
        (0..len as u64).map(|i| ((i * 2_654_435_761 + seed * 40_503) % 1009) as f64 / 504.5 - 1.0).collect()
    }

    #[test]
    fn gradients_are_differences_whatever_the_axis() {
        let shape = [3, 4, 2];
        for axis in 0..3 {
            let (w, dy) = (values(1, 24), values(2, 24));
            let matrix = WeightMatrix::new(&w, &shape, axis);
            assert!((0..24).all(|i| matrix.index(matrix.place(i).0, matrix.place(i).1) == i));
            let (u, v) = (values(3, shape[axis]), values(4, 24 / shape[axis]));
            let found = matrix.directions(&u, &v, PowerOrder::VFirst, 3, 1e-12);
            let got = matrix.backward(&dy, &found);
            let loss = |w: &[f64]| {
                let fixed = WeightMatrix::new(w, &shape, axis).directions(
                    &found.u,
                    &found.v,
                    PowerOrder::VFirst,
                    0,
                    0.0,
                );
                dy.iter().zip(w).map(|(dy, w)| dy * w / fixed.sigma).sum::<f64>()
            };
            for i in 0..24 {
                let moved = |by: f64| {
                    let mut w = w.clone();
                    w[i] += by;
                    loss(&w)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((got[i] - expected).abs() < 1e-8, "axis {axis}, {i}: {} is not {expected}", got[i]);
            }
        }
    }

    #[test]
    fn both_orders_find_the_greatest_singular_value() {
        // Of a diagonal matrix, whatever axis its rows are along.
        let w = [0.5, 0.0, 0.0, 0.0, -2.0, 0.0];
        for (axis, order) in [(0, PowerOrder::VFirst), (1, PowerOrder::UFirst)] {
            let matrix = WeightMatrix::new(&w, &[2, 3], axis);
            let (u, v) = (values(5, [2, 3][axis]), values(6, [3, 2][axis]));
            let found = matrix.directions(&u, &v, order, 40, 1e-12);
            assert!((found.sigma - 2.0).abs() < 1e-12, "{found:?}");
        }
        // Zeros have no direction.
        let none = WeightMatrix::new(&[0.0; 4], &[2, 2], 0).directions(
            &[1.0, 0.0],
            &[1.0, 0.0],
            PowerOrder::VFirst,
            1,
            1e-12,
        );
        assert_eq!((none.sigma, none.u), (0.0, vec![0.0, 0.0]));
    }
}
