//! What norms cost: in a step of the convolutional network; with an activation in the pass or behind it; RMS norm beside layer norm.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, activation};
use wgnorm_burn::{Activation, BatchNormConfig, DynamicTanhConfig, LayerNormConfig, RmsNormConfig};

use crate::Result;
use crate::figure::{Bar, Bars};
use crate::lab::Bench;
use crate::network::{Body, Shape};
use crate::norm::Kind;
use crate::outcome::{Outcome, Verdict};
use crate::timing::{Timed, medians};
use crate::training::{Plan, Trainer, percent, spread};

const ROUNDS: usize = 21;
const BATCH: usize = 60;

/// Medians of several things, of each repetition.
struct Times {
    caption: &'static str,
    names: Vec<String>,
    /// Of each repetition, in milliseconds.
    all: Vec<Vec<f64>>,
}

pub fn run_step(bench: &Bench<'_>) -> Result<Outcome> {
    let names = [
        "forward, no norm",
        "forward, burn's batch norm",
        "forward, batch norm",
        "forward, batch norm with ReLU",
        "step, no norm",
        "step, burn's batch norm",
        "step, batch norm",
        "step, batch norm with ReLU",
    ];
    let names = names.map(str::to_owned).into();
    let plain = Shape::new(Body::Convolutional, Kind::None);
    let shapes = [
        plain,
        Shape { kind: Kind::Burns, ..plain },
        Shape { kind: Kind::Batch, ..plain },
        Shape { is_fused: true, kind: Kind::Batch, ..plain },
    ];
    let times = Times::of(bench, "The convolutional network on 60 digits", names, |seed| {
        let device = &bench.lab.device;
        let trainers = || {
            shapes
                .map(|shape| Trainer::new(bench.lab, Plan { shape, rate: 0.1, batch: BATCH, steps: 0, seed }))
        };
        let forward = trainers().map(|trainer| {
            let batch = trainer.batch(&(0..BATCH).collect::<Vec<_>>());
            Box::new(move || drop(trainer.loss(&trainer.network, batch.clone()).into_data())) as Timed<'_>
        });
        let step = trainers().map(|mut trainer| {
            let batch = trainer.batch(&(0..BATCH).collect::<Vec<_>>());
            Box::new(move || drop(trainer.step_on(batch.clone()).map(Tensor::into_data))) as Timed<'_>
        });
        let [a, b, c, d] = forward;
        let [e, f, g, h] = step;
        Ok(medians(device, ROUNDS, [a, b, c, d, e, f, g, h])?.into())
    })?;
    times.write(bench)?;
    let added = |with: usize, without: usize| times.parts(|ms| (ms[with] - ms[without]) / ms[with]);
    // Of what is behind forward.
    let behind = |with: usize| {
        times.parts(|ms| {
            let [with, without] = [ms[4 + with] - ms[with], ms[4] - ms[0]];
            (with - without) / with
        })
    };
    let (forward, backward) = (spread(&added(3, 0)).0, spread(&behind(3)).0);
    let within = |part: f64, low: f64, high: f64| part >= low && part <= high;
    Ok(Outcome {
        ran: format!(
            "a training step of the convolutional network at batch {BATCH}: without norm, with burn's, with this crate's, ReLU behind it and in it; medians of {ROUNDS} in turns"
        ),
        found: format!(
            "share of forward: burn's {}, this crate's {}, with ReLU {}; of backward and update: {}, {}, {}",
            percent(&added(1, 0)),
            percent(&added(2, 0)),
            percent(&added(3, 0)),
            percent(&behind(1)),
            percent(&behind(2)),
            percent(&behind(3)),
        ),
        verdict: Verdict::CannotBeTestedHere,
        why: format!(
            "the shares are of a GPU with its convolutions. Here, beside burn's convolutions on llvmpipe, forward's share is {} that range and backward's {} it",
            if within(forward, 0.03, 0.07) { "within" } else { "outside of" },
            if within(backward, 0.05, 0.12) { "within" } else { "outside of" },
        ),
    })
}

pub fn run_fusion(bench: &Bench<'_>) -> Result<Outcome> {
    const DIMS: [usize; 4] = [32, 64, 56, 56];
    let names = ["ReLU behind it", "ReLU in it"];
    let times = Times::of_layers(bench, "Batch norm and ReLU over [32, 64, 56, 56]", names, || {
        let device = &bench.lab.device;
        let apart = BatchNormConfig::new(DIMS[1]).init(device);
        let fused = BatchNormConfig::new(DIMS[1]).init(device).with_activation(Activation::Relu);
        let behind = BatchNormConfig::new(DIMS[1]).init(device).freeze();
        in_turns(
            device,
            DIMS,
            [&move |x| activation::relu(apart.forward(x)), &move |x| fused.forward(x)],
            &move |x| behind.forward(x),
        )
    })?;
    times.write(bench)?;
    let [forward, both] = times.saved();
    Ok(Outcome {
        ran: format!("batch norm and ReLU over {DIMS:?} in training, in burn; medians of {ROUNDS} in turns"),
        found: format!(
            "time of norm and ReLU saved: forward {}, forward and backward {}",
            percent(&forward),
            percent(&both)
        ),
        verdict: Verdict::by(spread(&both).0, 0.25, 0.1),
        why: "passes over a tensor are 3 instead of 5 forward and 5 instead of 8 backward, 38 % less"
            .to_owned(),
    })
}

pub fn run_rms(bench: &Bench<'_>) -> Result<Outcome> {
    const DIMS: [usize; 2] = [8192, 1024];
    let names = ["layer norm", "RMS norm"];
    let times = Times::of_layers(bench, "8192 rows of 1024", names, || {
        let device = &bench.lab.device;
        let layer = LayerNormConfig::new(DIMS[1]).init(device);
        let rms = RmsNormConfig::new(DIMS[1]).init(device);
        let behind = DynamicTanhConfig::new(DIMS[1]).init(device);
        in_turns(device, DIMS, [&move |x| layer.forward(x), &move |x| rms.forward(x)], &move |x| {
            behind.forward(x)
        })
    })?;
    times.write(bench)?;
    let [forward, both] = times.saved();
    Ok(Outcome {
        ran: format!("both over {DIMS:?}, in burn; medians of {ROUNDS} in turns"),
        found: format!("time saved: forward {}, forward and backward {}", percent(&forward), percent(&both)),
        verdict: Verdict::by(spread(&both).0, 0.38, 0.1),
        why: "both make the same passes over memory; what RMS norm saves is arithmetic".to_owned(),
    })
}

/// Forward of two layers on the same x, and then both ways. What is behind them leaves dy in memory, as a network does, where burn would fuse a dy of ones; its own time is taken off.
fn in_turns<const D: usize>(
    device: &Device,
    dims: [usize; D],
    layers: [&dyn Fn(Tensor<D>) -> Tensor<D>; 2],
    behind: &dyn Fn(Tensor<D>) -> Tensor<D>,
) -> Result<Vec<f64>> {
    let x = Tensor::<D>::random(dims, Distribution::Normal(0.0, 1.0), device);
    let forward = layers.map(|layer| {
        let x = x.clone();
        Box::new(move || {
            // Alive until its kernels have run: fusion would put off what nobody could read.
            let y = layer(x.clone().require_grad());
            drop((device.sync(), y));
        }) as Timed<'_>
    });
    let both_ways = |x: Tensor<D>, layer: &dyn Fn(Tensor<D>) -> Tensor<D>| {
        let z = behind(layer(x.require_grad()));
        let gradients = z.backward();
        drop((device.sync(), z, gradients));
    };
    let both = layers.map(|layer| {
        let x = x.clone();
        Box::new(move || both_ways(x.clone(), layer)) as Timed<'_>
    });
    let [a, b] = forward;
    let [c, d] = both;
    let alone = Box::new(move || both_ways(x.clone(), &|x| x)) as Timed<'_>;
    let [a, b, c, d, alone] = medians(device, ROUNDS, [a, b, c, d, alone])?;
    Ok(vec![a, b, c - alone, d - alone])
}

impl Times {
    /// Of two layers, forward and both ways.
    fn of_layers(
        bench: &Bench<'_>,
        caption: &'static str,
        names: [&'static str; 2],
        run: impl Fn() -> Result<Vec<f64>>,
    ) -> Result<Self> {
        let ways = ["forward", "both ways"];
        let names = ways.iter().flat_map(|way| names.map(|name| format!("{way}, {name}"))).collect();
        Self::of(bench, caption, names, |_| run())
    }

    /// Of the second of two layers, the part of the first's time that it saves, forward and both ways.
    fn saved(&self) -> [Vec<f64>; 2] {
        [0, 2].map(|way| self.parts(|ms| 1.0 - ms[way + 1] / ms[way]))
    }

    fn of(
        bench: &Bench<'_>,
        caption: &'static str,
        names: Vec<String>,
        run: impl Fn(u64) -> Result<Vec<f64>>,
    ) -> Result<Self> {
        let bar = bench.progress(bench.seeds().count());
        let plan = |seed| (seed, names.clone(), caption, ROUNDS);
        let all = bench.of_seeds(&bar, "times", plan, |(seed, ..)| run(seed))?;
        bar.finish_and_clear();
        Ok(Self { caption, names, all })
    }

    /// A number of each repetition.
    fn parts(&self, of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        self.all.iter().map(|ms| of(ms)).collect()
    }

    fn write(&self, bench: &Bench<'_>) -> Result<()> {
        let mut rows = Vec::new();
        let mut bars = Vec::new();
        for (at, name) in self.names.iter().enumerate() {
            let values = self.parts(|ms| ms[at]);
            rows.extend(values.iter().enumerate().map(|(seed, ms)| format!("\"{name}\",{seed},{ms}")));
            bars.push(Bar { name: name.clone(), group: 1 + at * 2 / self.names.len(), values });
        }
        bench.csv("what,repetition,milliseconds", &rows)?;
        Bars { caption: self.caption.to_owned(), x: "milliseconds", bars }.draw(&bench.file("svg"))
    }
}
