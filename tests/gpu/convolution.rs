//! Convolutions in f64, written index by index: what folded weights must agree with. Shared with tests that need no GPU.

use wgnorm::absorb::WeightLayout;

/// A convolution of two kernel axes, or a linear layer (`kernel` None), with so many channels in each group.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    pub kind: Kind,
    pub groups: usize,
    /// Inputs of a group.
    pub inputs: usize,
    /// Outputs of a group.
    pub outputs: usize,
    pub kernel: Option<[usize; 2]>,
    pub stride: usize,
    pub padding: usize,
}

/// A layout without its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    OutputFirst,
    OutputLast,
    Depthwise,
    InputFirst,
    InputLast,
}

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::OutputFirst, Kind::OutputLast, Kind::Depthwise, Kind::InputFirst, Kind::InputLast];

    pub fn is_transposed(self) -> bool {
        matches!(self, Kind::InputFirst | Kind::InputLast)
    }
}

/// Numbers `[C, H, W]`.
pub struct Image {
    pub values: Vec<f64>,
    pub size: [usize; 2],
}

impl Convolution {
    /// Plain, of any kind, with two groups of 2 inputs and 3 outputs (depthwise: of an input each), and kernels of 3 by 2.
    pub fn of(kind: Kind, groups: usize) -> Self {
        let inputs = if kind == Kind::Depthwise { 1 } else { 2 };
        Self { kind, groups, inputs, outputs: 3, kernel: Some([3, 2]), stride: 1, padding: 0 }
    }

    pub fn linear(kind: Kind) -> Self {
        Self { kernel: None, inputs: 5, ..Self::of(kind, 1) }
    }

    pub fn layout(&self) -> WeightLayout {
        let groups = self.groups;
        match self.kind {
            Kind::OutputFirst => WeightLayout::OutputFirst { groups },
            Kind::OutputLast => WeightLayout::OutputLast { groups },
            Kind::Depthwise => WeightLayout::Depthwise,
            Kind::InputFirst => WeightLayout::InputFirst { groups },
            Kind::InputLast => WeightLayout::InputLast { groups },
        }
    }

    pub fn all_inputs(&self) -> usize {
        self.groups * self.inputs
    }

    pub fn all_outputs(&self) -> usize {
        self.groups * self.outputs
    }

    fn taps(&self) -> [usize; 2] {
        self.kernel.unwrap_or([1, 1])
    }

    pub fn dims(&self) -> Vec<usize> {
        let k = self.kernel.as_ref().map_or(&[][..], |kernel| &kernel[..]);
        let (i, o) = (self.all_inputs(), self.all_outputs());
        match self.kind {
            Kind::OutputFirst => [&[o, self.inputs], k].concat(),
            Kind::OutputLast => [k, &[self.inputs, o]].concat(),
            Kind::Depthwise => [k, &[i, self.outputs]].concat(),
            Kind::InputFirst => [&[i, self.outputs], k].concat(),
            Kind::InputLast => [k, &[self.outputs, i]].concat(),
        }
    }

    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Index of the weight between an input and an output of one group, by their numbers within it.
    fn weight(&self, group: usize, output: usize, input: usize, [ky, kx]: [usize; 2]) -> usize {
        let [kh, kw] = self.taps();
        let (o, i) = (group * self.outputs + output, group * self.inputs + input);
        let row_major = |at: [usize; 4], dims: [usize; 4]| {
            at.into_iter().zip(dims).fold(0, |index, (at, dim)| {
                assert!(at < dim);
                index * dim + at
            })
        };
        let (all_i, all_o) = (self.all_inputs(), self.all_outputs());
        match self.kind {
            Kind::OutputFirst => row_major([o, input, ky, kx], [all_o, self.inputs, kh, kw]),
            Kind::OutputLast => row_major([ky, kx, input, o], [kh, kw, self.inputs, all_o]),
            Kind::Depthwise => row_major([ky, kx, i, output], [kh, kw, all_i, self.outputs]),
            Kind::InputFirst => row_major([i, output, ky, kx], [all_i, self.outputs, kh, kw]),
            Kind::InputLast => row_major([ky, kx, output, i], [kh, kw, self.outputs, all_i]),
        }
    }

    /// The convolution of x, and for each output the sum of the magnitudes of what was added up.
    pub fn apply(&self, x: &Image, weights: &[f64], bias: Option<&[f64]>) -> (Image, Vec<f64>) {
        let ([kh, kw], [h, w], s, p) = (self.taps(), x.size, self.stride, self.padding);
        let length = |len: usize, k: usize| match self.kind.is_transposed() {
            true => (len - 1) * s + k - 2 * p,
            false => (len + 2 * p - k) / s + 1,
        };
        let size = [length(h, kh), length(w, kw)];
        let mut values = vec![0.0; self.all_outputs() * size[0] * size[1]];
        let mut magnitudes = values.clone();
        // The place on the longer side that a place on the shorter one meets through a tap.
        let meet = |at: usize, k: usize, len: usize| (at * s + k).checked_sub(p).filter(|&at| at < len);
        let (short, long) = if self.kind.is_transposed() { (x.size, size) } else { (size, x.size) };
        for (group, output, input) in triples(self.groups, self.outputs, self.inputs) {
            for (y_short, x_short, ky) in triples(short[0], short[1], kh) {
                for kx in 0..kw {
                    let (Some(y_long), Some(x_long)) =
                        (meet(y_short, ky, long[0]), meet(x_short, kx, long[1]))
                    else {
                        continue;
                    };
                    let (from, to) = match self.kind.is_transposed() {
                        true => ([y_short, x_short], [y_long, x_long]),
                        false => ([y_long, x_long], [y_short, x_short]),
                    };
                    let at =
                        |channel: usize, [y, x]: [usize; 2], [h, w]: [usize; 2]| (channel * h + y) * w + x;
                    let product = weights[self.weight(group, output, input, [ky, kx])]
                        * x.values[at(group * self.inputs + input, from, x.size)];
                    let to = at(group * self.outputs + output, to, size);
                    values[to] += product;
                    magnitudes[to] += product.abs();
                }
            }
        }
        let area = size[0] * size[1];
        for (at, value) in values.iter_mut().enumerate() {
            let bias = bias.map_or(0.0, |bias| bias[at / area]);
            *value += bias;
            magnitudes[at] += bias.abs();
        }
        (Image { values, size }, magnitudes)
    }
}

fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

/// A norm in f64.
#[derive(Clone, Debug)]
pub struct Norm {
    pub mean: Vec<f32>,
    pub var: Vec<f32>,
    pub gamma: Option<Vec<f32>>,
    pub beta: Option<Vec<f32>>,
    pub eps: f64,
}

impl Norm {
    /// Parameters from numbers in [-1, 1), four for each channel. Channels take turns at what breaks norms: a huge mean, a tiny
    /// variance, none, a gamma of 0, negative or subnormal.
    pub fn hostile(random: &[f32]) -> Self {
        let (mut mean, mut var, mut gamma, mut beta) = (vec![], vec![], vec![], vec![]);
        for (channel, random) in random.chunks_exact(4).enumerate() {
            let (m, v, g, b) = match channel % 7 {
                0 => (1e6, 1e-4, 1.0, 0.0),
                1 => (0.0, 1e-30, -1.0, 1.0),
                2 => (-3.0, 0.0, 2.0, -1e3),
                3 => (1e-20, 4.0, 0.0, 1.0),
                4 => (-1e3, 1e10, -3.0, 5.0),
                5 => (0.3, 1.0, 1e-40, 0.1),
                _ => (0.1, 1.0, 1.0, 0.5),
            };
            mean.push(m * (1.0 + 0.5 * random[0]));
            var.push(v * (1.0 + 0.5 * random[1]));
            gamma.push(g * (1.0 + 0.5 * random[2]));
            beta.push(b * (1.0 + 0.5 * random[3]));
        }
        Self { mean, var, gamma: Some(gamma), beta: Some(beta), eps: 1e-5 }
    }

    /// (x − mean) / sqrt(var + eps)·gamma + beta, and the magnitudes of what was added up if those of x are given.
    pub fn apply(&self, x: &Image, magnitudes: &[f64]) -> (Image, Vec<f64>) {
        let area = x.size[0] * x.size[1];
        let one = |at: usize, value: f64| {
            let c = at / area;
            let gamma = self.gamma.as_ref().map_or(1.0, |gamma| f64::from(gamma[c]));
            let beta = self.beta.as_ref().map_or(0.0, |beta| f64::from(beta[c]));
            let scale = gamma / (f64::from(self.var[c]) + self.eps).sqrt();
            let mean = f64::from(self.mean[c]);
            let magnitude = (magnitudes[at] + mean.abs()) * scale.abs() + beta.abs();
            ((value - mean) * scale + beta, magnitude)
        };
        let (values, magnitudes) = x.values.iter().enumerate().map(|(at, &value)| one(at, value)).unzip();
        (Image { values, size: x.size }, magnitudes)
    }
}

/// How far two sums may differ in f64 alone.
pub fn close(got: f64, expected: f64, magnitude: f64, allowed: f64) -> bool {
    (got - expected).abs() <= allowed * (1.0 + 1e-9) + 1e-13 * magnitude
}
