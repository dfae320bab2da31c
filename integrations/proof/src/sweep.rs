//! A number of every curve at every x, of every seed.

use std::fmt::Debug;

use crate::Result;
use crate::figure::Line;
use crate::lab::Bench;

impl Bench<'_> {
    /// Runs a plan of each curve, x and seed, and keeps the numbers: a line of each curve, and all of them as CSV whose columns are `head`, the seed and the number.
    pub fn sweep<C: Copy, P: Debug + Copy>(
        &self,
        head: &str,
        curves: &[(String, C)],
        xs: &[f64],
        plan: impl Fn(C, f64, u64) -> P,
        run: impl Fn(P) -> Result<f64>,
    ) -> Result<Vec<Line>> {
        let bar = self.progress(curves.len() * xs.len() * self.seeds().count());
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        for (name, curve) in curves {
            let mut runs = vec![Vec::new(); self.seeds().count()];
            for &x in xs {
                for (of_seed, seed) in runs.iter_mut().zip(self.seeds()) {
                    bar.set_message(format!("{name}, {x}, seed {seed}"));
                    let value = self.once(&format!("{name}-{x}-{seed}"), plan(*curve, x, seed), &run)?;
                    rows.push(format!("{name},{x},{seed},{value}"));
                    of_seed.push((x, value));
                    bar.inc(1);
                }
            }
            lines.push(Line::of_runs(name, runs));
        }
        bar.finish_and_clear();
        self.csv(&format!("{head},seed,value"), &rows)?;
        Ok(lines)
    }
}
