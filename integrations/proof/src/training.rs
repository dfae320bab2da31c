//! Training by plain gradient descent, and what is looked at meanwhile.

use burn::module::Module;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::digits::Shuffle;
use crate::lab::{HELD_OUT, Lab};
use crate::network::{Network, Shape};

/// How a network is trained.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub rate: f64,
    pub batch: usize,
    pub steps: usize,
    pub seed: u64,
}

/// Images and their labels.
pub type Batch = (Tensor<4>, Tensor<1, Int>);

/// A network that trains.
pub struct Trainer<'l> {
    pub network: Network,
    pub plan: Plan,
    lab: &'l Lab,
    device: Device,
    optimizer: ModuleOptimizer,
    loss: CrossEntropyLoss,
    shuffle: Shuffle,
    order: Vec<usize>,
    step: usize,
    /// How images are shown.
    view: fn(Tensor<4>) -> Tensor<4>,
}

/// A look at a network in training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look {
    pub step: usize,
    /// Of the digits that were held out, the part that it knows.
    pub accuracy: f64,
    /// The 15th, 50th and 85th percentile of what a unit's activation in the last hidden layer is of; zeros in a convolutional network.
    pub percentiles: [f64; 3],
}

/// As they are.
pub fn plain(images: Tensor<4>) -> Tensor<4> {
    images
}

impl<'l> Trainer<'l> {
    pub fn new(lab: &'l Lab, plan: Plan) -> Self {
        lab.device.seed(100 + plan.seed);
        Self::of(lab, plan, Network::new(plan.shape, &lab.device), &lab.device, plain)
    }

    /// Of a network that there is, on its device, on images shown in this way.
    pub fn of(
        lab: &'l Lab,
        plan: Plan,
        network: Network,
        device: &Device,
        view: fn(Tensor<4>) -> Tensor<4>,
    ) -> Self {
        let loss = CrossEntropyLossConfig::new().init(device);
        let (shuffle, order) = (Shuffle(plan.seed), Vec::new());
        let (optimizer, device) = (SgdConfig::new().init(), device.clone());
        Self { network, plan, lab, device, optimizer, loss, shuffle, order, step: 0, view }
    }

    /// Of another network, from the beginning.
    pub fn again(&self, network: Network) -> Self {
        Self::of(self.lab, self.plan, network, &self.device, self.view)
    }

    /// Which digits the next batch is of.
    pub fn next(&mut self) -> Vec<usize> {
        let batch = self.plan.batch;
        if self.order.len() < batch {
            self.order = self.shuffle.order(self.lab.digits.len() - HELD_OUT);
        }
        self.order.drain(..batch).collect()
    }

    pub fn batch(&self, of: &[usize]) -> Batch {
        let (images, labels) = self.lab.digits.batch(of, &self.device);
        ((self.view)(images), labels)
    }

    pub fn loss(&self, network: &Network, (images, labels): Batch) -> Tensor<1> {
        self.loss.forward(network.forward(images), labels)
    }

    /// Loss and gradients at a network's weights.
    pub fn gradients(&self, network: &Network, batch: Batch) -> (Tensor<1>, GradientsParams) {
        let loss = self.loss(network, batch);
        let gradients = GradientsParams::from_grads(loss.backward(), network);
        (loss.detach(), gradients)
    }

    /// A network that is a rate along gradients from one.
    pub fn along(&mut self, network: Network, rate: f64, gradients: GradientsParams) -> Network {
        self.optimizer.step(rate, network, gradients)
    }

    fn step(&mut self) -> Result<()> {
        let batch = self.next();
        self.step_on(self.batch(&batch))?;
        Ok(())
    }

    /// A step on a batch; gives the loss.
    pub fn step_on(&mut self, batch: Batch) -> Result<Tensor<1>> {
        for norm in &mut self.network.norms {
            norm.at(self.step, self.plan.steps);
        }
        let (loss, gradients) = self.gradients(&self.network, batch);
        self.network = self.along(self.network.clone(), self.plan.rate, gradients);
        self.step += 1;
        // Who is far ahead of the device spins, on a core that llvmpipe could have.
        self.device.sync()?;
        Ok(loss)
    }

    pub fn steps(mut self, steps: usize) -> Result<Self> {
        (0..steps).try_for_each(|_| self.step())?;
        Ok(self)
    }

    /// The part of the held-out digits that it knows in inference.
    pub fn accuracy(&self) -> Result<f64> {
        known(self.lab, &self.network.valid(), self.view)
    }

    pub fn look(&self) -> Result<Look> {
        let network = self.network.valid();
        let device = self.device.clone().without_autodiff();
        let mut of_a_unit = Vec::new();
        if !network.linears.is_empty() {
            let images = (self.view)(self.lab.digits.batch(&held_out(self.lab), &device).0);
            of_a_unit = values(network.last_inputs(images).narrow(1, 0, 1))?;
            of_a_unit.sort_unstable_by(f32::total_cmp);
        }
        let at = |part: f64| {
            let at = of_a_unit.get((part * of_a_unit.len().saturating_sub(1) as f64) as usize);
            at.filter(|at| at.is_finite()).map_or(0.0, |at| f64::from(*at))
        };
        let percentiles = [0.15, 0.5, 0.85].map(at);
        Ok(Look { step: self.step, accuracy: known(self.lab, &network, self.view)?, percentiles })
    }
}

/// The accuracy after all steps.
pub fn accuracy(lab: &Lab, plan: Plan) -> Result<f64> {
    Trainer::new(lab, plan).steps(plan.steps)?.accuracy()
}

/// Digits that no network trains on.
pub fn held_out(lab: &Lab) -> Vec<usize> {
    (lab.digits.len() - HELD_OUT..lab.digits.len()).collect()
}

/// The part of the held-out digits that a network knows.
pub fn known(lab: &Lab, network: &Network, view: fn(Tensor<4>) -> Tensor<4>) -> Result<f64> {
    let device = lab.device.clone().without_autodiff();
    part_known(lab, &held_out(lab), |of| Ok(network.forward(view(lab.digits.batch(of, &device).0))))
}

/// The part of digits whose highest score is that of their label.
pub fn part_known(
    lab: &Lab,
    of: &[usize],
    scores: impl FnOnce(&[usize]) -> Result<Tensor<2>>,
) -> Result<f64> {
    let found = scores(of)?.argmax(1).try_into_data().map_err(|error| format!("{error:?}"))?;
    let known = of.iter().zip(found.iter::<i64>()).filter(|(of, found)| lab.digits.label(**of) == *found);
    Ok(known.count() as f64 / of.len() as f64)
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    Ok(tensor.try_into_data().map_err(|error| format!("{error:?}"))?.iter::<f32>().collect())
}

/// How far the median of a unit's inputs goes in the second half of training, over the width of their distribution.
pub fn drift(percentiles: &[[f64; 3]]) -> f64 {
    let late = &percentiles[percentiles.len() / 2..];
    let medians: Vec<f64> = late.iter().map(|[_, median, _]| *median).collect();
    let widths: Vec<f64> = late.iter().map(|[low, _, high]| high - low).collect();
    2.0 * spread(&medians).1 / spread(&widths).0.max(1e-9)
}

/// Mean, and half of the range.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let [least, most] = [f64::min, f64::max].map(|of| values.iter().copied().reduce(of).unwrap_or_default());
    (values.iter().sum::<f64>() / values.len().max(1) as f64, (most - least) / 2.0)
}

/// Of each seed, what one thing has over another.
pub fn differences(of: &[f64], without: &[f64]) -> Vec<f64> {
    of.iter().zip(without).map(|(of, without)| of - without).collect()
}

/// Parts of 1 as percentages: their mean, and half of their range.
pub fn percent(parts: &[f64]) -> String {
    let (mean, within) = spread(parts);
    format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * within)
}
