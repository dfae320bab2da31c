//! Training by plain gradient descent, and what is looked at meanwhile.

use std::error::Error;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use serde::{Deserialize, Serialize};

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
    /// Steps between two looks.
    pub look: usize,
    pub seed: u64,
}

/// A look at a network in training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look {
    pub step: usize,
    /// Of the digits that were held out, the part that it knows.
    pub accuracy: f64,
    /// The 15th, 50th and 85th percentile of what a unit's activation in the last hidden layer is of.
    pub percentiles: [f64; 3],
}

pub fn train(lab: &Lab, plan: Plan) -> Result<Vec<Look>, Box<dyn Error>> {
    let Plan { shape, rate, batch, steps, look, seed } = plan;
    let device = &lab.device;
    device.seed(100 + seed);
    let mut network = Network::new(shape, device);
    let mut optimizer = SgdConfig::new().init();
    let loss = CrossEntropyLossConfig::new().init(device);
    let mut shuffle = Shuffle(seed);
    let (mut order, mut looks) = (Vec::new(), Vec::new());
    for step in 0..=steps {
        if step % look == 0 {
            looks.push(self::look(lab, &network, step)?);
        }
        if order.len() < batch {
            order = shuffle.order(lab.digits.len() - HELD_OUT);
        }
        let of: Vec<usize> = order.drain(..batch).collect();
        let (images, labels) = lab.digits.batch(&of, device);
        let value = loss.forward(network.forward(images), labels);
        let gradients = GradientsParams::from_grads(value.backward(), &network);
        network = optimizer.step(rate, network, gradients);
    }
    Ok(looks)
}

/// A network as it is in inference.
fn look(lab: &Lab, network: &Network, step: usize) -> Result<Look, Box<dyn Error>> {
    let network = network.valid();
    let device = lab.device.clone().without_autodiff();
    let held_out: Vec<usize> = (lab.digits.len() - HELD_OUT..lab.digits.len()).collect();
    let (images, _) = lab.digits.batch(&held_out, &device);
    let mut of_a_unit: Vec<f32> =
        network.last_inputs(images.clone()).narrow(1, 0, 1).into_data().iter::<f32>().collect();
    let found: Vec<i64> = network.forward(images).argmax(1).into_data().iter::<i64>().collect();
    let known = held_out.iter().zip(found).filter(|(of, found)| lab.digits.label(**of) == *found).count();
    of_a_unit.sort_unstable_by(f32::total_cmp);
    let at = |part: f64| f64::from(of_a_unit[(part * (of_a_unit.len() - 1) as f64) as usize]);
    let percentiles = [at(0.15), at(0.5), at(0.85)].map(|value| if value.is_finite() { value } else { 0.0 });
    Ok(Look { step, accuracy: known as f64 / HELD_OUT as f64, percentiles })
}

/// Mean, and half of the range.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let [least, most] = [f64::min, f64::max].map(|of| values.iter().copied().reduce(of).unwrap_or_default());
    (values.iter().sum::<f64>() / values.len().max(1) as f64, (most - least) / 2.0)
}
