//! Switchable norm in f64: statistics that are mixtures of an instance's, its layer's and the batch's. Twin of shaders/fold/mixture{,_sums,_means}.wesl.
//!
//! Source: Luo, Ren, Peng, Zhang & Li, "Differentiable Learning-to-Normalize via Switchable Normalization", ICLR 2019; with unbiased variances of instances as the authors' program has them.

use super::Moments;

/// A tensor `[N, C, K]`, and how its statistics are mixed.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// Samples, channels, values of each.
    pub dims: [usize; 3],
    /// x, row-major.
    pub x: &'a [f64],
    /// gamma of each channel; 1 if there is none.
    pub gamma: Option<&'a [f64]>,
    /// beta of each channel; 0 if there is none.
    pub beta: Option<&'a [f64]>,
    /// What the weights of means, and of variances, are softmaxes of: instance, layer, batch.
    pub logits: [[f64; 3]; 2],
    /// What is added to the mixed variance.
    pub eps: f64,
    /// Whether the variance of an instance is divided by one less than its number of values.
    pub unbiased: bool,
}

/// Means and variances.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Of instances, `n·C + c`.
    pub instances: Vec<Moments>,
    /// Of layers, by sample.
    pub layers: Vec<Moments>,
    /// Of the batch, by channel.
    pub batch: Vec<Moments>,
    /// Weights of means, and of variances.
    pub weights: [[f64; 3]; 2],
    /// The mixtures, of each instance.
    pub mean: Vec<f64>,
    /// The same of variances.
    pub var: Vec<f64>,
}

/// The gradients of a sum of dz·z.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// By x.
    pub dx: Vec<f64>,
    /// By gamma.
    pub dgamma: Vec<f64>,
    /// By beta.
    pub dbeta: Vec<f64>,
    /// By the logits of means, and of variances.
    pub dlogits: [[f64; 3]; 2],
}

/// Softmax.
pub fn softmax(logits: [f64; 3]) -> [f64; 3] {
    let greatest = logits.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let powers = logits.map(|logit| (logit - greatest).exp());
    powers.map(|power| power / powers.iter().sum::<f64>())
}

/// The moments of parts of as many values each.
fn merged<'m>(parts: impl Iterator<Item = &'m Moments> + Clone) -> Moments {
    let number = parts.clone().count() as f64;
    let count = parts.clone().map(|part| part.count).sum();
    let mean = parts.clone().map(|part| part.mean).sum::<f64>() / number;
    let var = parts.map(|part| part.var + (part.mean - mean).powi(2)).sum::<f64>() / number;
    Moments { count, mean, var }
}

impl Problem<'_> {
    fn place(&self, i: usize) -> (usize, usize, usize) {
        let [_, channels, values] = self.dims;
        let instance = i / values;
        (instance, instance / channels, instance % channels)
    }

    /// All statistics; with the moments of the batch given, these instead of its own.
    ///
    /// # Panics
    /// Unless the lengths fit.
    pub fn statistics(&self, running: Option<&[Moments]>) -> Statistics {
        let [samples, channels, values] = self.dims;
        assert_eq!(self.x.len(), samples * channels * values, "x has another number of values");
        let instance = |x: &[f64]| {
            let mean = x[0] + x.iter().map(|value| value - x[0]).sum::<f64>() / values as f64;
            let squares = x.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
            let divisor = if self.unbiased { values as f64 - 1.0 } else { values as f64 };
            Moments { count: values as u64, mean, var: squares / divisor }
        };
        let instances: Vec<Moments> = self.x.chunks(values.max(1)).map(instance).collect();
        let layers: Vec<_> = instances.chunks(channels).map(|of| merged(of.iter())).collect();
        let own = (0..channels).map(|c| merged(instances.iter().skip(c).step_by(channels)));
        let batch: Vec<_> = running.map_or_else(|| own.collect(), <[Moments]>::to_vec);
        let weights = self.logits.map(softmax);
        let mixed = |of: fn(&Moments) -> f64, w: [f64; 3]| -> Vec<f64> {
            let mix = |(i, own): (usize, &Moments)| {
                w[0] * of(own) + w[1] * of(&layers[i / channels]) + w[2] * of(&batch[i % channels])
            };
            instances.iter().enumerate().map(mix).collect()
        };
        let (mean, var) = (mixed(|m| m.mean, weights[0]), mixed(|m| m.var, weights[1]));
        Statistics { instances, layers, batch, weights, mean, var }
    }

    /// gamma of a channel.
    pub fn weight(&self, c: usize) -> f64 {
        self.gamma.map_or(1.0, |gamma| gamma[c])
    }

    /// beta of a channel.
    pub fn shift(&self, c: usize) -> f64 {
        self.beta.map_or(0.0, |beta| beta[c])
    }

    /// x̂ of an element.
    fn xhat(&self, i: usize, of: &Statistics) -> f64 {
        let (instance, ..) = self.place(i);
        (self.x[i] - of.mean[instance]) / (of.var[instance] + self.eps).sqrt()
    }

    /// x̂·gamma + beta.
    pub fn forward(&self, of: &Statistics) -> Vec<f64> {
        let z = |i: usize| {
            let (_, _, c) = self.place(i);
            self.xhat(i, of) * self.weight(c) + self.shift(c)
        };
        (0..self.x.len()).map(z).collect()
    }

    /// The gradients from dz, through statistics of the batch's own.
    pub fn backward(&self, dz: &[f64], of: &Statistics) -> Gradients {
        let [samples, channels, values] = self.dims;
        let (n, c, k) = (samples as f64, channels as f64, values as f64);
        let (mut by_mean, mut by_var) = (vec![0.0; samples * channels], vec![0.0; samples * channels]);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        let inv_std = |instance: usize| (of.var[instance] + self.eps).sqrt().recip();
        for (i, dz) in dz.iter().enumerate() {
            let (instance, _, channel) = self.place(i);
            let (xhat, inv_std) = (self.xhat(i, of), inv_std(instance));
            let weighted = self.weight(channel) * dz;
            by_mean[instance] -= weighted * inv_std;
            by_var[instance] -= 0.5 * weighted * xhat * inv_std * inv_std;
            dgamma[channel] += dz * xhat;
            dbeta[channel] += dz;
        }
        let over_layer = |of: &[f64], sample: usize| of[sample * channels..][..channels].iter().sum::<f64>();
        let over_batch = |of: &[f64], channel: usize| of.iter().skip(channel).step_by(channels).sum::<f64>();
        let [w, v] = of.weights;
        // By what the moments of each kind change, of each instance.
        let of_instances: Vec<[f64; 2]> = (0..samples * channels)
            .map(|i| {
                let (sample, channel) = (i / channels, i % channels);
                // A layer's variance is the mean of its instances' and the variance of their means, and so is the batch's.
                let var = v[0] * by_var[i]
                    + v[1] * over_layer(&by_var, sample) / c
                    + v[2] * over_batch(&by_var, channel) / n;
                let mean = w[0] * by_mean[i]
                    + w[1] * over_layer(&by_mean, sample) / c
                    + w[2] * over_batch(&by_mean, channel) / n
                    + v[1] * over_layer(&by_var, sample) / c
                        * 2.0
                        * (of.instances[i].mean - of.layers[sample].mean)
                    + v[2] * over_batch(&by_var, channel) / n
                        * 2.0
                        * (of.instances[i].mean - of.batch[channel].mean);
                [mean, var]
            })
            .collect();
        let divisor = if self.unbiased { k - 1.0 } else { k };
        let dx = (0..self.x.len())
            .map(|i| {
                let (instance, _, channel) = self.place(i);
                let [mean, var] = of_instances[instance];
                self.weight(channel) * dz[i] * inv_std(instance)
                    + mean / k
                    + var * 2.0 * (self.x[i] - of.instances[instance].mean) / divisor
            })
            .collect();
        let logits = |w: [f64; 3], by: &[f64], moment: fn(&Moments) -> f64, mixed: &[f64]| {
            let kinds = |i: usize| [&of.instances[i], &of.layers[i / channels], &of.batch[i % channels]];
            let of_kind = |kind: usize| {
                w[kind] * (0..by.len()).map(|i| by[i] * (moment(kinds(i)[kind]) - mixed[i])).sum::<f64>()
            };
            [0, 1, 2].map(of_kind)
        };
        let dlogits = [logits(w, &by_mean, |m| m.mean, &of.mean), logits(v, &by_var, |m| m.var, &of.var)];
        Gradients { dx, dgamma, dbeta, dlogits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, len: usize) -> Vec<f64> {
        (0..len as u64).map(|i| ((i * 2_654_435_761 + seed * 40_503) % 1009) as f64 / 504.5 - 1.0).collect()
    }

    #[test]
    fn gradients_are_differences() {
        for unbiased in [false, true] {
            let (x, dz) = (values(1, 24), values(2, 24));
            let (gamma, beta) = (values(3, 3), values(4, 3));
            let logits = [[0.3, -0.4, 0.1], [-0.2, 0.5, 0.9]];
            let problem = Problem {
                dims: [2, 3, 4],
                x: &x,
                gamma: Some(&gamma),
                beta: Some(&beta),
                logits,
                eps: 1e-3,
                unbiased,
            };
            let loss = |problem: Problem<'_>| {
                let z = problem.forward(&problem.statistics(None));
                z.iter().zip(&dz).map(|(z, dz)| z * dz).sum::<f64>()
            };
            let got = problem.backward(&dz, &problem.statistics(None));
            let near = |what: &str, got: f64, of: &dyn Fn(f64) -> f64| {
                let expected = (of(1e-5) - of(-1e-5)) / 2e-5;
                assert!((got - expected).abs() < 1e-7, "{what}: {got} is not {expected}");
            };
            for i in 0..24 {
                near("dx", got.dx[i], &|by| {
                    let mut x = x.clone();
                    x[i] += by;
                    loss(Problem { x: &x, ..problem })
                });
            }
            for c in 0..3 {
                near("dgamma", got.dgamma[c], &|by| {
                    let mut gamma = gamma.clone();
                    gamma[c] += by;
                    loss(Problem { gamma: Some(&gamma), ..problem })
                });
                for which in 0..2 {
                    near("dlogits", got.dlogits[which][c], &|by| {
                        let mut logits = logits;
                        logits[which][c] += by;
                        loss(Problem { logits, ..problem })
                    });
                }
            }
        }
    }

    #[test]
    fn the_ends_are_batch_layer_and_instance_norm() {
        let x = values(5, 24);
        for kind in 0..3 {
            let mut logits = [[-1e3; 3]; 2];
            logits.iter_mut().for_each(|logits| logits[kind] = 0.0);
            let problem = Problem {
                dims: [2, 3, 4],
                x: &x,
                gamma: None,
                beta: None,
                logits,
                eps: 1e-5,
                unbiased: false,
            };
            let of = problem.statistics(None);
            // The values of the first element's slice.
            let slice: Vec<f64> = match kind {
                0 => x[..4].to_vec(),
                1 => x[..12].to_vec(),
                _ => [&x[..4], &x[12..16]].concat(),
            };
            let mean = slice.iter().sum::<f64>() / slice.len() as f64;
            let var = slice.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / slice.len() as f64;
            assert!((of.mean[0] - mean).abs() < 1e-12 && (of.var[0] - var).abs() < 1e-12, "{kind}");
        }
    }
}
