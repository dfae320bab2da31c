//! Operations with everything that stands around the normalization: activation, residual, storage, in place, and tensors
//! that lie in their buffers in other ways than densely. `Setup` describes one, `assert_train` and `assert_frozen` run it
//! and hold it against the reference.

use wgnorm::reference::activation::kinks;
use wgnorm::reference::bounds::{self, Magnitudes};
use wgnorm::reference::{self, Statistics, WhereNan, compare_as, map, reduce};
use wgnorm::{
    Activation, BatchNorm, BatchNormOptions, Channels, Context, DType, GradientTargets, Input, Layout,
    RunningStatistics, RunningValues, Saved, Shape, Tensor,
};

use crate::support::{context, values, wide};

/// What is run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// In memory order.
    pub dims: Vec<usize>,
    pub layout: Layout,
    pub dtype: DType,
    pub parameters: DType,
    pub activation: Activation,
    pub residual: bool,
    /// y over x, and dx over dy.
    pub in_place: bool,
    /// Where x, dy, residual, y, dx and d_residual lie.
    pub places: [Place; 6],
}

/// How a tensor lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// Densely, from this element on.
    At(usize),
    /// The samples up to this one in one buffer, from element `at` on, the others in another.
    Parts { cut: usize, at: usize },
    /// As the channels from `first` on of a tensor with `of` channels.
    Channels { first: usize, of: usize },
    /// Samples this many elements further apart than densely.
    Apart(usize),
}

/// A tensor with guards around its elements.
pub struct Placed {
    pub tensor: Tensor,
    dtype: DType,
    /// Each buffer, what it held, and the elements of it that are the tensor's.
    buffers: Vec<(wgpu::Buffer, Vec<u8>, Vec<usize>)>,
}

/// Results, widened.
#[derive(Debug, PartialEq)]
pub struct Outputs {
    pub y: Vec<f32>,
    pub dx: Vec<f32>,
    pub d_residual: Option<Vec<f32>>,
    pub dgamma: Vec<f32>,
    pub dbeta: Vec<f32>,
    pub recoverable: Vec<bool>,
}

pub const OPTIONS: BatchNormOptions = BatchNormOptions::pytorch();

impl Setup {
    pub fn new(dims: &[usize], dtype: DType, activation: Activation) -> Self {
        Self {
            dims: dims.to_vec(),
            layout: Layout::ChannelsFirst,
            dtype,
            parameters: DType::F32,
            activation,
            residual: false,
            in_place: false,
            places: [Place::At(0); 6],
        }
    }

    pub fn view(&self) -> Channels {
        Shape::new(&self.dims).unwrap().channels(self.layout).unwrap()
    }

    fn options(&self) -> BatchNormOptions {
        OPTIONS.activation(self.activation)
    }

    fn place(&self, context: &Context, which: usize, values: Option<&[f32]>) -> Placed {
        Placed::new(context, &self.dims, self.layout, self.dtype, self.places[which], values)
    }
}

impl Placed {
    /// A tensor with these values amid a pattern, or one of NaN.
    pub fn new(
        context: &Context,
        dims: &[usize],
        layout: Layout,
        dtype: DType,
        place: Place,
        values: Option<&[f32]>,
    ) -> Self {
        let shape = Shape::new(dims).unwrap();
        let len = shape.len() as usize;
        let nan = vec![f32::NAN; len];
        let bytes = dtype.encode(values.unwrap_or(&nan));
        let size = dtype.size() as usize;
        let sample = len / dims[0].max(1);
        let buffer_of = |indices: Vec<usize>, bytes: &[u8], room: usize| {
            // Whole words after the last element, so that they can be read as words.
            let mut content: Vec<u8> =
                (0..(room * size).next_multiple_of(16) + 16).map(|i| (i * 37 + 101) as u8).collect();
            for (i, &index) in indices.iter().enumerate() {
                content[index * size..][..size].copy_from_slice(&bytes[i * size..][..size]);
            }
            let buffer = raw(context, &content);
            (buffer, content, indices)
        };
        let plain = |buffer: &wgpu::Buffer, at: usize, dims: &[usize]| {
            let offset = (at * size) as u64;
            Tensor::from_buffer_as(context, buffer.clone(), offset, dims, dtype).unwrap().with_layout(layout)
        };
        match place {
            Place::At(at) => {
                let all = buffer_of((at..at + len).collect(), &bytes, at + len);
                Self { tensor: plain(&all.0, at, dims), dtype, buffers: vec![all] }
            }
            Place::Parts { cut, at } => {
                let first = buffer_of((at..at + cut * sample).collect(), &bytes, at + cut * sample);
                let rest = buffer_of(
                    (0..len - cut * sample).collect(),
                    &bytes[cut * sample * size..],
                    len - cut * sample,
                );
                let with = |samples: usize| [&[samples], &dims[1..]].concat();
                let a = plain(&first.0, at, &with(cut));
                let b = plain(&rest.0, 0, &with(dims[0] - cut));
                Self { tensor: Tensor::concat(&[&a, &b]).unwrap(), dtype, buffers: vec![first, rest] }
            }
            Place::Channels { first, of } => {
                let view = shape.channels(layout).unwrap();
                let (c, inner) = (view.channels as usize, view.inner as usize);
                let index = |i: usize| match layout {
                    Layout::ChannelsLast => i / c * of + first + i % c,
                    _ => (i / (c * inner) * of + first) * inner + i % (c * inner),
                };
                let mut larger = dims.to_vec();
                larger[if layout == Layout::ChannelsLast { dims.len() - 1 } else { 1 }] = of;
                let room = dims[0] * of * inner;
                let all = buffer_of((0..len).map(index).collect(), &bytes, room);
                let tensor = plain(&all.0, 0, &larger).slice_channels(first..first + c).unwrap();
                Self { tensor, dtype, buffers: vec![all] }
            }
            Place::Apart(gap) => {
                let index = |i: usize| i / sample * (sample + gap) + i % sample;
                let all = buffer_of((0..len).map(index).collect(), &bytes, dims[0] * (sample + gap));
                let stride = (sample + gap) as u64;
                let tensor =
                    Tensor::from_strided_buffer(context, all.0.clone(), 0, dims, dtype, stride).unwrap();
                Self { tensor: tensor.with_layout(layout), dtype, buffers: vec![all] }
            }
        }
    }

    /// The values; what is around them must not have changed.
    #[track_caller]
    pub fn get(&self, context: &Context) -> Vec<f32> {
        let size = self.dtype.size() as usize;
        let mut found = Vec::new();
        for (buffer, content, indices) in &self.buffers {
            let now = read(context, buffer);
            let mut restored = now.clone();
            for &index in indices {
                found.extend_from_slice(&now[index * size..][..size]);
                restored[index * size..][..size].copy_from_slice(&content[index * size..][..size]);
            }
            let changed: Vec<_> = (0..now.len()).filter(|&i| restored[i] != content[i]).collect();
            assert!(changed.is_empty(), "bytes around the tensor changed: {changed:?}");
        }
        let values = self.dtype.decode(&found);
        let downloaded = context.block_on(context.download(&self.tensor)).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&values), bits(&downloaded), "download");
        values
    }
}

fn raw(context: &Context, content: &[u8]) -> wgpu::Buffer {
    use wgpu::BufferUsages as Usage;
    let buffer = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: content.len() as u64,
        usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
        mapped_at_creation: false,
    });
    context.queue().write_buffer(&buffer, 0, content);
    buffer
}

/// All bytes of a buffer.
fn read(context: &Context, buffer: &wgpu::Buffer) -> Vec<u8> {
    let words = [buffer.size() as usize / 4];
    let tensor = Tensor::from_buffer(context, buffer.clone(), 0, &words).unwrap();
    let values = context.block_on(context.download(&tensor)).unwrap();
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Values that a type has.
pub fn rounded(dtype: DType, values: Vec<f32>) -> Vec<f32> {
    dtype.decode(&dtype.encode(&values))
}

/// Inputs on the host, and what must come of them.
pub struct Host {
    setup: Setup,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
    residual: Option<Vec<f32>>,
    pub gamma: Vec<f32>,
    beta: Vec<f32>,
    running: RunningValues,
}

impl Host {
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let view = setup.view();
        let (len, c) = (view.elements() as usize, view.channels as usize);
        let of = |k: u64, len: usize, shift: f32, scale: f32, dtype: DType| {
            rounded(dtype, values(seed * 10 + k, len, shift, scale))
        };
        Self {
            x: of(0, len, 0.5, 2.0, setup.dtype),
            dy: of(1, len, 0.1, 1.0, setup.dtype),
            residual: setup.residual.then(|| of(2, len, 0.0, 1.0, setup.dtype)),
            gamma: of(3, c, 1.5, 1.0, setup.parameters),
            beta: of(4, c, 0.0, 1.0, setup.parameters),
            running: RunningValues {
                mean: of(5, c, 0.5, 0.3, DType::F32),
                var: of(6, c, 1.3, 0.5, DType::F32),
                batches: 0,
            },
            setup: setup.clone(),
        }
    }

    pub fn layer(&self, context: &Context) -> BatchNorm {
        let c = self.gamma.len();
        let parameters = self.setup.parameters;
        context
            .block_on(async {
                let gamma = context.upload_as(&[c], &self.gamma, parameters).await?;
                let beta = context.upload_as(&[c], &self.beta, parameters).await?;
                let running = RunningStatistics::upload(context, &self.running).await?;
                BatchNorm::from_parts(context, self.setup.options(), Some(gamma), Some(beta), running)
            })
            .unwrap()
    }

    fn added(&self) -> Option<Vec<f64>> {
        self.residual.as_deref().map(wide)
    }

    /// dy without what the derivative's jump could send either way.
    fn without_kinks(&mut self, s: &[Statistics]) {
        let view = self.setup.view();
        let z = map::forward(&wide(&self.x), view, s, Some(&wide(&self.gamma)), Some(&wide(&self.beta)));
        for (i, dy) in self.dy.iter_mut().enumerate() {
            let z = z[i] + self.residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
            if kinks(self.setup.activation).iter().any(|kink| (z - kink).abs() < 2e-3) {
                *dy = 0.0;
            }
        }
    }

    pub fn batch_statistics(&self) -> Vec<Statistics> {
        let moments = reduce::moments(&wide(&self.x), self.setup.view());
        moments.iter().map(|m| Statistics::new(m.mean, m.var, OPTIONS.eps)).collect()
    }

    fn running_statistics(&self) -> Vec<Statistics> {
        let pairs = self.running.mean.iter().zip(&self.running.var);
        pairs.map(|(&mean, &var)| Statistics::new(mean.into(), var.into(), OPTIONS.eps)).collect()
    }

    /// Holds outputs against the reference.
    #[track_caller]
    fn assert(&self, what: &str, s: &[Statistics], train: bool, got: &Outputs) {
        let Setup { dtype, parameters, activation, in_place, .. } = self.setup;
        let view = self.setup.view();
        let channel = |i: usize| view.channel_of(i as u64) as usize;
        let (x, dy, gamma, beta) = (wide(&self.x), wide(&self.dy), wide(&self.gamma), wide(&self.beta));
        let residual = self.added();
        let added = |i: usize| residual.as_ref().map_or(0.0, |r| r[i]);
        let hold = |name: &str, dtype: DType, got: &[f32], expected: &[f64], bound: &dyn Fn(usize) -> f64| {
            let stored = |i: usize| bounds::stored(dtype, expected[i], bound(i));
            let worst = compare_as(dtype, got, expected, WhereNan::Nan, stored).unwrap();
            assert!(worst.passes(), "{what}: {name}: {worst}");
        };

        let z = map::forward(&x, view, s, Some(&gamma), Some(&beta));
        let z_bound = |i: usize| {
            let c = channel(i);
            match self.setup.residual {
                true => bounds::z(&s[c], x[i], gamma[c], beta[c], added(i)),
                false => bounds::y(&s[c], x[i], gamma[c], beta[c]),
            }
        };
        let y = map::activated(&z, residual.as_deref(), activation);
        let y_bound = |i: usize| bounds::activated(activation, z[i] + added(i), z_bound(i));
        hold("y", dtype, &got.y, &y, &y_bound);

        let dz = map::dz(&z, residual.as_deref(), &dy, activation);
        let from_y = train && in_place;
        let xhat_error = |i: usize| match from_y {
            true => {
                let c = channel(i);
                let stored = bounds::stored(dtype, y[i], y_bound(i));
                bounds::recovered_xhat(activation, y[i], stored, gamma[c], beta[c], added(i))
            }
            false => 0.0,
        };
        // Where z is the inverse of a y that is off by as much as its storage allows.
        let dz_bound = |i: usize| bounds::dz(activation, dy[i], z_bound(i));
        if let Some(d_residual) = &got.d_residual {
            hold("d_residual", dtype, d_residual, &dz, &dz_bound);
        }
        let sums = reduce::gradient_sums(&x, &dz, view, s);
        let mut m: Vec<Magnitudes> = bounds::magnitudes(&x, &dz, view, s);
        for i in 0..x.len() {
            let c = channel(i);
            m[c].dy_error += dz_bound(i);
            m[c].dy_xhat_error += dz_bound(i) * s[c].normalize(x[i]).abs() + dz[i].abs() * xhat_error(i);
        }
        let dx = match train {
            true => map::backward(&x, &dz, view, s, &sums, Some(&gamma)),
            false => map::frozen(&dz, view, s, Some(&gamma)),
        };
        hold("dx", dtype, &got.dx, &dx, &|i| {
            let c = channel(i);
            match train {
                true => {
                    bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dz[i], gamma[c])
                        + bounds::dx_error(&s[c], &sums[c], view, gamma[c], dz_bound(i), xhat_error(i))
                }
                false => {
                    bounds::frozen_dx(&s[c], dz[i], gamma[c]) + (gamma[c] * s[c].inv_std).abs() * dz_bound(i)
                }
            }
        });
        let dgamma: Vec<_> = sums.iter().map(|sums| sums.dy_xhat).collect();
        hold("dgamma", parameters, &got.dgamma, &dgamma, &|c| bounds::dgamma(&m[c]));
        let dbeta: Vec<_> = sums.iter().map(|sums| sums.dy).collect();
        hold("dbeta", parameters, &got.dbeta, &dbeta, &|c| bounds::dbeta(&m[c]));
    }

    /// Runs forward and backward on outputs of NaN.
    pub fn run(&self, context: &Context, train: bool) -> Outputs {
        let setup = &self.setup;
        let (x, dy) = (setup.place(context, 0, Some(&self.x)), setup.place(context, 1, Some(&self.dy)));
        let residual = self.residual.as_ref().map(|values| setup.place(context, 2, Some(values)));
        let (y, dx) = (setup.place(context, 3, None), setup.place(context, 4, None));
        let d_residual = setup.residual.then(|| setup.place(context, 5, None));
        let (y, dx) = if setup.in_place { (&x, &dy) } else { (&y, &dx) };
        let per_channel = || {
            let dims = [self.gamma.len()];
            Placed::new(context, &dims, Layout::ChannelsFirst, setup.parameters, Place::At(3), None)
        };
        let (dgamma, dbeta) = (per_channel(), per_channel());
        let targets = GradientTargets {
            dx: Some(&dx.tensor),
            d_residual: d_residual.as_ref().map(|d| &d.tensor),
            dgamma: Some(&dgamma.tensor),
            dbeta: Some(&dbeta.tensor),
            ..Default::default()
        };
        let input = Input { residual: residual.as_ref().map(|r| &r.tensor), ..(&x.tensor).into() };
        let mut layer = self.layer(context);
        let mut recoverable = vec![];
        if train {
            context.block_on(async {
                let saved = match setup.in_place {
                    true => Saved::in_place(context, &x.tensor).await.unwrap(),
                    false => Saved::new(context, &x.tensor).await.unwrap(),
                };
                let forward = layer.prepare_train_forward(input, &y.tensor, Some(&saved)).await.unwrap();
                layer.submit(&forward).await.unwrap();
                recoverable = saved.download(context).await.unwrap().iter().map(|s| s.recoverable).collect();
            });
            let y = y.get(context);
            context.block_on(async {
                // Once more from the start, because in place it is y by now.
                let x = setup.place(context, 0, Some(&self.x));
                let saved = match setup.in_place {
                    true => Saved::in_place(context, &x.tensor).await.unwrap(),
                    false => Saved::new(context, &x.tensor).await.unwrap(),
                };
                let scratch = context.zeros_like(&x.tensor).await.unwrap();
                let out = if setup.in_place { &x.tensor } else { &scratch };
                let input = Input { x: &x.tensor, ..input };
                let forward = layer.prepare_train_forward_untracked(input, out, Some(&saved)).await.unwrap();
                let backward = layer.prepare_backward(input, &dy.tensor, &saved, &targets).await.unwrap();
                context.submit(&[&forward, &backward]).await.unwrap();
            });
            return self.collect(context, y, dx, d_residual, dgamma, dbeta, recoverable);
        }
        let layer = layer.freeze();
        context.block_on(async {
            // Backward first: in place, forward destroys x.
            let backward = layer.prepare_backward(input, &dy.tensor, &targets).await.unwrap();
            let forward = layer.prepare_forward(input, &y.tensor).await.unwrap();
            context.submit(&[&backward, &forward]).await.unwrap();
        });
        self.collect(context, y.get(context), dx, d_residual, dgamma, dbeta, recoverable)
    }

    #[expect(clippy::too_many_arguments, reason = "one per output")]
    fn collect(
        &self,
        context: &Context,
        y: Vec<f32>,
        dx: &Placed,
        d_residual: Option<Placed>,
        dgamma: Placed,
        dbeta: Placed,
        recoverable: Vec<bool>,
    ) -> Outputs {
        Outputs {
            y,
            dx: dx.get(context),
            d_residual: d_residual.map(|d| d.get(context)),
            dgamma: dgamma.get(context),
            dbeta: dbeta.get(context),
            recoverable,
        }
    }
}

/// Training agrees with the reference.
#[track_caller]
pub fn assert_train(context: &Context, setup: &Setup, seed: u64) -> Outputs {
    let mut host = Host::new(setup, seed);
    host.without_kinks(&host.batch_statistics());
    let got = host.run(context, true);
    host.assert(&format!("train {setup:?}"), &host.batch_statistics(), true, &got);
    got
}

/// Inference and backward through running statistics agree with the reference.
#[track_caller]
pub fn assert_frozen(context: &Context, setup: &Setup, seed: u64) -> Outputs {
    let mut host = Host::new(setup, seed);
    host.without_kinks(&host.running_statistics());
    let got = host.run(context, false);
    host.assert(&format!("frozen {setup:?}"), &host.running_statistics(), false, &got);
    got
}

/// The same bits in all outputs.
#[track_caller]
pub fn assert_same_bits(what: &str, a: &Outputs, b: &Outputs) {
    let bits = |o: &Outputs| {
        [Some(&o.y), Some(&o.dx), o.d_residual.as_ref(), Some(&o.dgamma), Some(&o.dbeta)]
            .map(|values| values.map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()))
    };
    assert!(bits(a) == bits(b), "{what}: other bits");
}

const SHAPES: [&[usize]; 4] = [&[3, 5, 7, 3], &[2, 4, 8], &[9, 6], &[2, 3, 33]];

#[test]
fn every_activation_with_and_without_residual() {
    let context = context();
    for (activation, seed) in Activation::ALL.into_iter().zip(1..) {
        for residual in [false, true] {
            let setup = Setup { residual, ..Setup::new(SHAPES[seed as usize % 2], DType::F32, activation) };
            assert_train(&context, &setup, seed);
            assert_frozen(&context, &setup, seed + 100);
        }
    }
}

#[test]
fn fused_in_every_layout_and_plan() {
    let plans = crate::support::few_contexts().into_iter();
    for (name, context) in plans.chain([crate::support::column_contexts().remove(3)]) {
        for (dims, seed) in SHAPES.into_iter().zip(1..) {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let setup =
                    Setup { residual: true, layout, ..Setup::new(dims, DType::F32, Activation::Relu) };
                println!("{name} {setup:?}");
                assert_train(&context, &setup, seed);
                assert_frozen(&context, &setup, seed);
            }
        }
    }
}

#[test]
fn kinks_and_nan() {
    // A constant channel: z is beta, which is 0 here, exactly at the kink of most activations.
    let context = context();
    for activation in Activation::ALL {
        let options = OPTIONS.activation(activation);
        context.block_on(async {
            let x = context.upload(&[2, 2, 2], &[3.0, 3.0, f32::NAN, 1.0, 3.0, 3.0, 2.0, 1.0]).await.unwrap();
            let dy = context.upload(&[2, 2, 2], &[1.0; 8]).await.unwrap();
            let mut layer = BatchNorm::new(&context, 2, options).await.unwrap();
            let (y, saved) = layer.train_forward(&x).await.unwrap();
            let y = context.download(&y).await.unwrap();
            let at_zero = reference::activation::activate(activation, 0.0) as f32;
            assert!([0, 1, 4, 5].iter().all(|&i| y[i] == at_zero), "{activation}: {y:?}");
            assert!([2, 3, 6, 7].iter().all(|&i| y[i].is_nan()), "{activation}: {y:?}");
            let gradients = layer.backward(&x, &dy, &saved).await.unwrap();
            let dbeta = context.download(&gradients.dbeta.unwrap()).await.unwrap();
            let slope = reference::activation::gradient(activation, 0.0, 1.0);
            assert!((f64::from(dbeta[0]) - 4.0 * slope).abs() < 1e-6, "{activation}: {dbeta:?}");
        });
    }
}
