//! A small transformer that continues text, character by character.

use std::hash::{DefaultHasher, Hash, Hasher};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};

use crate::Result;
use crate::digits::Shuffle;
use crate::lab::Lab;
use crate::norm::{Kind, Norm};
use crate::training::values;

const WIDTH: usize = 48;
const HEADS: usize = 4;
const BLOCKS: usize = 4;
const CONTEXT: usize = 32;
const BATCH: usize = 16;
const RATE: f64 = 3e-3;
const LOOK: usize = 20;
/// Batches of the held-out text that a look is at.
const LOOKED_AT: usize = 4;

/// How it is trained.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub steps: usize,
    pub seed: u64,
    /// Deviation of the embeddings at the beginning.
    pub embedding: f64,
}

/// Characters as numbers, in order of their first appearance.
pub struct Text {
    characters: Vec<i32>,
    known: usize,
}

#[derive(Module, Debug)]
struct Transformer {
    characters: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    last: Option<Norm>,
    head: Linear,
}

/// Attention and a perceptron, each behind a norm and beside a shortcut.
#[derive(Module, Debug)]
struct Block {
    norms: Vec<Norm>,
    /// Of queries, keys and values.
    asked: Linear,
    answered: Linear,
    wide: Linear,
    narrow: Linear,
}

impl Text {
    pub fn new(text: &str) -> Self {
        let mut known = Vec::new();
        let number = |character| {
            let at = known.iter().position(|known| *known == character).unwrap_or_else(|| {
                known.push(character);
                known.len() - 1
            });
            i32::try_from(at).unwrap_or(i32::MAX)
        };
        let characters = text.chars().map(number).collect();
        Self { characters, known: known.len() }
    }

    pub fn len(&self) -> usize {
        self.characters.len()
    }

    /// Another number for another text.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.characters.hash(&mut hasher);
        hasher.finish()
    }

    /// A batch of texts that begin there, and what follows each character.
    fn batch(&self, begins: &[usize], device: &Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
        let from = |shift: usize| -> Vec<i32> {
            let text = |&at: &usize| self.characters[at + shift..at + shift + CONTEXT].iter().copied();
            begins.iter().flat_map(text).collect()
        };
        let all = begins.len() * CONTEXT;
        let (texts, next) = (from(0), from(1));
        (
            Tensor::from_data(TensorData::new(texts, [begins.len(), CONTEXT]), device),
            Tensor::from_data(TensorData::new(next, [all]), device),
        )
    }

    /// Where a text can begin to train on; what is behind is held out.
    fn train_on(&self) -> usize {
        self.len() * 9 / 10 - CONTEXT - 1
    }

    fn held_out(&self, batch: usize) -> Vec<usize> {
        let (from, all) = (self.len() * 9 / 10, LOOKED_AT * BATCH);
        let apart = (self.len() - from - CONTEXT - 1) / all;
        (batch * BATCH..(batch + 1) * BATCH).map(|at| from + at * apart).collect()
    }
}

impl Transformer {
    fn new(kind: Kind, deviation: f64, known: usize, device: &Device) -> Self {
        let normal = |std| Initializer::Normal { mean: 0.0, std };
        let linear = |from, to| LinearConfig::new(from, to).with_initializer(normal(0.02)).init(device);
        let block = |_| Block {
            norms: (0..2).filter_map(|_| kind.init(WIDTH, device)).collect(),
            asked: linear(WIDTH, 3 * WIDTH),
            answered: linear(WIDTH, WIDTH),
            wide: linear(WIDTH, 4 * WIDTH),
            narrow: linear(4 * WIDTH, WIDTH),
        };
        let embedding = |of| EmbeddingConfig::new(of, WIDTH).with_initializer(normal(deviation)).init(device);
        Self {
            characters: embedding(known),
            positions: embedding(CONTEXT),
            blocks: (0..BLOCKS).map(block).collect(),
            last: kind.init(WIDTH, device),
            head: linear(WIDTH, known),
        }
    }

    /// Scores of what follows each character, `[N · CONTEXT, known]`.
    fn forward(&self, texts: Tensor<2, Int>) -> Tensor<2> {
        let [samples, length] = texts.dims();
        let device = texts.device();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze::<2>();
        let mut x = self.characters.forward(texts) + self.positions.forward(positions);
        let later: Tensor<4, Bool> = Tensor::<2, Bool>::tril_mask([length, length], 0, &device).unsqueeze();
        for block in &self.blocks {
            x = block.forward(x, &later);
        }
        let x = self.last.as_ref().map_or_else(|| x.clone(), |norm| norm.forward(x.clone()));
        self.head.forward(x.reshape([samples * length, WIDTH]))
    }
}

impl Block {
    fn forward(&self, x: Tensor<3>, later: &Tensor<4, Bool>) -> Tensor<3> {
        let normed = |at: usize, x: &Tensor<3>| {
            self.norms.get(at).map_or_else(|| x.clone(), |norm| norm.forward(x.clone()))
        };
        let x = x.clone() + self.attend(normed(0, &x), later);
        let hidden = activation::gelu(self.wide.forward(normed(1, &x)));
        x + self.narrow.forward(hidden)
    }

    fn attend(&self, x: Tensor<3>, later: &Tensor<4, Bool>) -> Tensor<3> {
        let [samples, length, _] = x.dims();
        let asked = self.asked.forward(x);
        // [N, heads, CONTEXT, width of a head]
        let part = |at: usize| {
            let part = asked.clone().narrow(2, at * WIDTH, WIDTH);
            part.reshape([samples, length, HEADS, WIDTH / HEADS]).swap_dims(1, 2)
        };
        let scores = part(0).matmul(part(1).transpose()) / ((WIDTH / HEADS) as f64).sqrt();
        let weights = activation::softmax(scores.mask_fill(later.clone(), -1e9), 3);
        let answers = weights.matmul(part(2)).swap_dims(1, 2).reshape([samples, length, WIDTH]);
        self.answered.forward(answers)
    }
}

/// The loss on held-out text, by step.
pub fn losses(lab: &Lab, text: &Text, plan: Plan) -> Result<Vec<(f64, f64)>> {
    let Plan { kind, steps, seed, embedding } = plan;
    let device = &lab.device;
    device.seed(200 + seed);
    let mut model = Transformer::new(kind, embedding, text.known, device);
    let mut optimizer = AdamConfig::new().init();
    let cross_entropy = CrossEntropyLossConfig::new();
    let loss = cross_entropy.init(device);
    let mut shuffle = Shuffle(seed);
    let (mut order, mut curve) = (Vec::new(), Vec::new());
    for step in 0..=steps {
        if step % LOOK == 0 {
            let device = device.clone().without_autodiff();
            let (model, loss) = (model.valid(), cross_entropy.init(&device));
            let mut sum = 0.0;
            for batch in 0..LOOKED_AT {
                let (texts, next) = text.batch(&text.held_out(batch), &device);
                sum += f64::from(values(loss.forward(model.forward(texts), next))?[0]);
            }
            curve.push((step as f64, sum / LOOKED_AT as f64));
        }
        if step == steps {
            break;
        }
        if order.len() < BATCH {
            order = shuffle.order(text.train_on());
        }
        let begins: Vec<usize> = order.drain(..BATCH).collect();
        let (texts, next) = text.batch(&begins, device);
        let value = loss.forward(model.forward(texts), next);
        let gradients = GradientsParams::from_grads(value.backward(), &model);
        // A tenth of all steps until the full rate.
        let rate = RATE * (10.0 * (step + 1) as f64 / steps as f64).min(1.0);
        model = optimizer.step(rate, model, gradients);
        device.sync()?;
    }
    Ok(curve)
}
