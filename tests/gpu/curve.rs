//! Dynamic Tanh and Derf: `Setup` describes a layer and its tensors, `assert_curve` runs it and holds it against the reference.

use wgnorm::reference::curve::{self, Parameters, SumBounds};
use wgnorm::reference::{WhereNan, bounds, compare_as, map, masked};
use wgnorm::{
    Accumulation, Activation, Affine, Autotuning, Channels, Context, Curve, CurveGradients, CurveOptions,
    CurveTargets, DType, Derf, DynamicTanh, Error, Input, Layout, Mask, Op, Prepared, Result, Shape, Tensor,
    Tuning,
};

use crate::fused::{Place, Placed, rounded};
use crate::support::*;

/// Either layer, where the function is a value.
enum Layer {
    Tanh(DynamicTanh),
    Erf(Derf),
}

macro_rules! either {
    ($layer:expr, $of:ident => $do:expr) => {
        match $layer {
            Layer::Tanh($of) => $do,
            Layer::Erf($of) => $do,
        }
    };
}

impl Layer {
    async fn new(context: &Context, f: Curve, channels: usize, options: CurveOptions) -> Result<Self> {
        Ok(match f {
            Curve::Tanh => Self::Tanh(DynamicTanh::new(context, channels, options).await?),
            _ => Self::Erf(Derf::new(context, channels, options).await?),
        })
    }

    /// The shift is left out where the layer has none.
    fn from_parts(
        context: &Context,
        f: Curve,
        options: CurveOptions,
        [alpha, shift]: [Tensor; 2],
        [gamma, beta]: [Option<Tensor>; 2],
    ) -> Result<Self> {
        Ok(match f {
            Curve::Tanh => Self::Tanh(DynamicTanh::from_parts(context, options, alpha, gamma, beta)?),
            _ => Self::Erf(Derf::from_parts(context, options, alpha, shift, gamma, beta)?),
        })
    }

    async fn prepare_forward(&self, input: Input<'_>, y: &Tensor) -> Result<Prepared> {
        either!(self, layer => layer.prepare_forward(input, y).await)
    }

    async fn forward(&self, input: Input<'_>) -> Result<Tensor> {
        either!(self, layer => layer.forward(input).await)
    }

    async fn prepare_backward(
        &self,
        input: Input<'_>,
        dy: &Tensor,
        targets: &CurveTargets<'_>,
    ) -> Result<Prepared> {
        either!(self, layer => layer.prepare_backward(input, dy, targets).await)
    }

    async fn backward(&self, input: Input<'_>, dy: &Tensor) -> Result<CurveGradients> {
        either!(self, layer => layer.backward(input, dy).await)
    }

    fn alpha(&self) -> &Tensor {
        either!(self, layer => layer.alpha())
    }
}

/// What is run.
#[derive(Clone, Debug)]
struct Setup {
    f: Curve,
    /// In memory order.
    dims: Vec<usize>,
    layout: Layout,
    dtype: DType,
    parameters: DType,
    activation: Activation,
    residual: bool,
    /// y over x, and dx over dy.
    in_place: bool,
    masked: bool,
    /// Where x, dy, residual, y, dx and d_residual lie.
    places: [Place; 6],
}

impl Setup {
    fn new(f: Curve, dims: &[usize]) -> Self {
        Self {
            f,
            dims: dims.to_vec(),
            layout: Layout::ChannelsFirst,
            dtype: DType::F32,
            parameters: DType::F32,
            activation: Activation::None,
            residual: false,
            in_place: false,
            masked: false,
            places: [Place::At(0); 6],
        }
    }

    fn view(&self) -> Channels {
        Shape::new(&self.dims).unwrap().channels(self.layout).unwrap()
    }

    fn place(&self, context: &Context, which: usize, values: Option<&[f32]>) -> Placed {
        Placed::new(context, &self.dims, self.layout, self.dtype, self.places[which], values)
    }

    fn parameter(&self, context: &Context, values: Option<&[f32]>, len: usize) -> Placed {
        Placed::new(context, &[len], Layout::ChannelsFirst, self.parameters, Place::At(3), values)
    }
}

/// Inputs on the host.
#[derive(Clone, Debug)]
struct Host {
    setup: Setup,
    x: Vec<f32>,
    dy: Vec<f32>,
    residual: Option<Vec<f32>>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    alpha: f32,
    shift: f32,
    keep: Vec<bool>,
}

/// Results, widened.
#[derive(Debug, PartialEq)]
struct Outputs {
    y: Vec<f32>,
    dx: Vec<f32>,
    d_residual: Option<Vec<f32>>,
    dgamma: Vec<f32>,
    dbeta: Vec<f32>,
    dalpha: Vec<f32>,
    dshift: Option<Vec<f32>>,
}

impl Host {
    fn new(setup: &Setup, seed: u64) -> Self {
        let view = setup.view();
        let (len, c) = (view.elements() as usize, view.channels as usize);
        let of = |k: u64, len: usize, shift: f32, scale: f32, dtype: DType| {
            rounded(dtype, values(seed * 10 + k, len, shift, scale))
        };
        let mut host = Self {
            setup: setup.clone(),
            // Linear and saturated.
            x: of(0, len, 0.5, 4.0, setup.dtype),
            dy: of(1, len, 0.1, 1.0, setup.dtype),
            residual: setup.residual.then(|| of(2, len, 0.0, 1.0, setup.dtype)),
            gamma: of(3, c, 0.5, 1.0, setup.parameters),
            beta: of(4, c, 0.0, 1.0, setup.parameters),
            alpha: 0.75,
            shift: if setup.f == Curve::Tanh { 0.0 } else { -0.25 },
            keep: values(seed * 10 + 5, view.count() as usize, 0.4, 1.0).iter().map(|v| *v > 0.0).collect(),
        };
        if setup.masked {
            // What kernels must not look at.
            for i in (0..len).filter(|&i| !masked::counts(view, &host.keep, i)) {
                host.x[i] = [f32::NAN, f32::INFINITY, -7.0][i % 3];
                host.dy[i] = [3.0, f32::NAN, f32::INFINITY, -7.0][i % 4];
            }
        }
        host
    }

    fn options(&self) -> CurveOptions {
        CurveOptions::default().activation(self.setup.activation)
    }

    fn layer(&self, context: &Context) -> Layer {
        let place = |values: &[f32]| self.setup.parameter(context, Some(values), values.len()).tensor;
        let of_all = [place(&[self.alpha]), place(&[self.shift])];
        let affine = [Some(place(&self.gamma)), Some(place(&self.beta))];
        Layer::from_parts(context, self.setup.f, self.options(), of_all, affine).unwrap()
    }

    /// Runs forward and backward on outputs of NaN.
    fn run(&self, context: &Context) -> Outputs {
        let setup = &self.setup;
        let (x, dy) = (setup.place(context, 0, Some(&self.x)), setup.place(context, 1, Some(&self.dy)));
        let residual = self.residual.as_ref().map(|values| setup.place(context, 2, Some(values)));
        let (y, dx) = (setup.place(context, 3, None), setup.place(context, 4, None));
        let d_residual = setup.residual.then(|| setup.place(context, 5, None));
        let (y, dx) = if setup.in_place { (&x, &dy) } else { (&y, &dx) };
        let c = self.gamma.len();
        let [dgamma, dbeta] = [c, c].map(|len| setup.parameter(context, None, len));
        let [dalpha, dshift] = [1, 1].map(|len| setup.parameter(context, None, len));
        let shifted = setup.f != Curve::Tanh;
        let targets = CurveTargets {
            dx: Some(&dx.tensor),
            d_residual: d_residual.as_ref().map(|d| &d.tensor),
            dgamma: Some(&dgamma.tensor),
            dbeta: Some(&dbeta.tensor),
            dalpha: Some(&dalpha.tensor),
            dshift: shifted.then_some(&dshift.tensor),
            ..Default::default()
        };
        let layer = self.layer(context);
        context.block_on(async {
            let mask = Mask::of_positions(context, &x.tensor, &self.keep).await.unwrap();
            let input = Input {
                residual: residual.as_ref().map(|r| &r.tensor),
                mask: setup.masked.then_some(&mask),
                ..(&x.tensor).into()
            };
            // Backward first: in place, forward destroys x.
            let backward = layer.prepare_backward(input, &dy.tensor, &targets).await.unwrap();
            let forward = layer.prepare_forward(input, &y.tensor).await.unwrap();
            context.submit(&[&backward, &forward]).await.unwrap();
        });
        Outputs {
            y: y.get(context),
            dx: dx.get(context),
            d_residual: d_residual.map(|d| d.get(context)),
            dgamma: dgamma.get(context),
            dbeta: dbeta.get(context),
            dalpha: dalpha.get(context),
            dshift: shifted.then(|| dshift.get(context)),
        }
    }

    /// Holds outputs against the reference.
    #[track_caller]
    fn assert(&self, got: &Outputs) {
        let Setup { f, dtype, parameters, activation, .. } = self.setup;
        let view = self.setup.view();
        let channel = |i: usize| view.channel_of(i as u64) as usize;
        let (x, dy, gamma, beta) = (wide(&self.x), wide(&self.dy), wide(&self.gamma), wide(&self.beta));
        let p = Parameters {
            curve: f,
            alpha: self.alpha.into(),
            shift: self.shift.into(),
            gamma: Some(&gamma),
            beta: Some(&beta),
        };
        let residual = self.residual.as_deref().map(wide);
        let added = |i: usize| residual.as_ref().map_or(0.0, |r| r[i]);
        let hold = |name: &str, dtype: DType, got: &[f32], expected: &[f64], bound: &dyn Fn(usize) -> f64| {
            let stored = |i: usize| bounds::stored(dtype, expected[i], bound(i));
            let worst = compare_as(dtype, got, expected, WhereNan::Nan, stored).unwrap();
            assert!(worst.passes(), "{:?}: {name}: {worst}", self.setup);
        };
        let z = curve::forward(&x, view, &p);
        let z_bound = |i: usize| curve::z_bound(&p, x[i], channel(i), residual.as_ref().map(|r| r[i]));
        let y = map::activated(&z, residual.as_deref(), activation);
        hold("y", dtype, &got.y, &y, &|i| bounds::activated(activation, z[i] + added(i), z_bound(i)));

        // What a mask leaves out is replaced by something harmless: its dz is 0.
        let counts = |i: usize| !self.setup.masked || masked::counts(view, &self.keep, i);
        let x: Vec<_> = x.iter().enumerate().map(|(i, &x)| if counts(i) { x } else { 0.0 }).collect();
        let dz = map::dz(&z, residual.as_deref(), &dy, activation);
        let dz: Vec<_> = dz.iter().enumerate().map(|(i, &dz)| if counts(i) { dz } else { 0.0 }).collect();
        let dz_bound = |i: usize| match counts(i) {
            true => bounds::dz(activation, dy[i], curve::z_bound(&p, x[i], channel(i), Some(added(i)))),
            false => 0.0,
        };
        if let Some(d_residual) = &got.d_residual {
            hold("d_residual", dtype, d_residual, &dz, &dz_bound);
        }
        let expected = curve::backward(&x, &dz, view, &p);
        let sums: SumBounds = curve::sum_bounds(&x, &dz, view, &p, dz_bound);
        hold("dx", dtype, &got.dx, &expected.dx, &|i| {
            curve::dx_bound(&p, x[i], channel(i), dz[i], dz_bound(i))
        });
        hold("dgamma", parameters, &got.dgamma, &expected.dgamma, &|c| sums.dgamma[c]);
        hold("dbeta", parameters, &got.dbeta, &expected.dbeta, &|c| sums.dbeta[c]);
        hold("dalpha", parameters, &got.dalpha, &[expected.dalpha], &|_| sums.dalpha);
        if let Some(dshift) = &got.dshift {
            hold("dshift", parameters, dshift, &[expected.dshift], &|_| sums.dshift);
        }
    }

    /// dy without what the derivative's jump could send either way.
    fn without_kinks(&mut self) {
        let view = self.setup.view();
        let (gamma, beta) = (wide(&self.gamma), wide(&self.beta));
        let p = Parameters {
            curve: self.setup.f,
            alpha: self.alpha.into(),
            shift: self.shift.into(),
            gamma: Some(&gamma),
            beta: Some(&beta),
        };
        let z = curve::forward(&wide(&self.x), view, &p);
        for (i, dy) in self.dy.iter_mut().enumerate() {
            let z = z[i] + self.residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
            let kinks = wgnorm::reference::activation::kinks(self.setup.activation);
            if kinks.iter().any(|kink| (z - kink).abs() < 1e-4) {
                *dy = 0.0;
            }
        }
    }
}

/// Forward and backward agree with the reference.
#[track_caller]
fn assert_curve(context: &Context, setup: &Setup, seed: u64) -> Outputs {
    let mut host = Host::new(setup, seed);
    host.without_kinks();
    let got = host.run(context);
    host.assert(&got);
    got
}

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];
/// `[rows, C]` and `[N, L, C]` are those of transformers.
const SHAPES: [&[usize]; 6] = [&[9, 8], &[2, 5, 12], &[3, 5, 7, 3], &[41, 5], &[2, 3, 33], &[7, 1]];

#[test]
fn every_layout_and_plan() {
    let plans = few_contexts().into_iter();
    for (name, context) in plans.chain([column_contexts().remove(3), column_contexts().remove(5)]) {
        for (dims, seed) in SHAPES.into_iter().zip(1..) {
            for layout in LAYOUTS {
                for f in Curve::ALL {
                    let setup = Setup { layout, ..Setup::new(f, dims) };
                    println!("{name} {setup:?}");
                    assert_curve(&context, &setup, seed);
                }
            }
        }
    }
}

#[test]
fn every_activation_with_and_without_a_residual() {
    let context = context();
    for (activation, seed) in Activation::ALL.into_iter().zip(1..) {
        for residual in [false, true] {
            let f = Curve::ALL[seed as usize % 2];
            let setup = Setup { activation, residual, ..Setup::new(f, SHAPES[seed as usize % 3]) };
            assert_curve(&context, &setup, seed);
        }
    }
    // The function of the curve and that of the activation are made of the same files.
    for (f, activation) in [(Curve::Tanh, Activation::Tanh), (Curve::Erf, Activation::Gelu)] {
        assert_curve(&context, &Setup { activation, ..Setup::new(f, &[4, 6]) }, 11);
    }
}

#[test]
fn sixteen_bits() {
    let context = context();
    for (dtype, seed) in [(DType::F16, 1), (DType::Bf16, 2)] {
        for f in Curve::ALL {
            for layout in LAYOUTS {
                for parameters in [DType::F32, dtype] {
                    let setup = Setup { dtype, parameters, layout, ..Setup::new(f, &[3, 5, 7, 3]) };
                    assert_curve(&context, &setup, seed);
                }
                // At any element of a word, the same for all tensors, or another for each.
                for places in [[Place::At(1); 6], [3, 1, 6, 5, 2, 7].map(Place::At)] {
                    let setup = Setup { dtype, layout, places, ..Setup::new(f, &[2, 5, 3, 3]) };
                    assert_curve(&context, &setup, seed);
                }
            }
        }
    }
}

#[test]
fn with_all_tensors_parameters_are_bound_as_one() {
    let context = context();
    let (activation, residual) = (Activation::Gelu, true);
    for f in Curve::ALL {
        for masked in [false, true] {
            for layout in LAYOUTS {
                for parameters in [DType::F32, DType::Bf16] {
                    let dtype = parameters;
                    let setup = Setup {
                        activation,
                        residual,
                        masked,
                        layout,
                        parameters,
                        dtype,
                        ..Setup::new(f, &[3, 5, 6])
                    };
                    assert_curve(&context, &setup, 3);
                }
            }
        }
        let host = Host::new(&Setup { activation, residual, ..Setup::new(f, &[4, 6]) }, 3);
        let layer = host.layer(&context);
        let kernels = context.block_on(async {
            let x = context.zeros(&[4, 6]).await.unwrap();
            let others: [Tensor; 4] = std::array::from_fn(|_| zeros(&context, &[4, 6]));
            let [residual, dy, dx, d_residual] = &others;
            let targets = CurveTargets { dx: Some(dx), d_residual: Some(d_residual), ..Default::default() };
            let without_sums = layer.prepare_backward(x.plus(residual), dy, &targets).await.unwrap();
            let dalpha = context.zeros(&[1]).await.unwrap();
            let targets = CurveTargets { dalpha: Some(&dalpha), ..targets };
            let backward = layer.prepare_backward(x.plus(residual), dy, &targets).await.unwrap();
            let names = |prepared: &Prepared| {
                prepared
                    .kernels()
                    .map(|key| key.split([' ', '<']).next().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            [names(&without_sums), names(&backward)]
        });
        let fused: &[&str] = &["fold_records", "reduce_gradients", "fold_curve", "fold_alpha"];
        assert_eq!(kernels, [&["fold_records", "map_backward"][..], fused]);
    }
}

#[test]
fn what_is_not_asked_for_is_not_computed() {
    let context = context();
    for f in Curve::ALL {
        for layout in LAYOUTS {
            let setup = Setup { layout, ..Setup::new(f, &[3, 5, 7]) };
            let host = Host::new(&setup, 4);
            let all = host.run(&context);
            let layer = host.layer(&context);
            let (x, dy) = (setup.place(&context, 0, Some(&host.x)), setup.place(&context, 1, Some(&host.dy)));
            let c = host.gamma.len();
            for asked in 1..32_u32 {
                let is = |bit: u32| asked >> bit & 1 == 1;
                if is(4) && f == Curve::Tanh {
                    continue;
                }
                let dx = setup.place(&context, 4, None);
                let per = [c, c, 1, 1].map(|len| setup.parameter(&context, None, len));
                let targets = CurveTargets {
                    dx: is(0).then_some(&dx.tensor),
                    dgamma: is(1).then_some(&per[0].tensor),
                    dbeta: is(2).then_some(&per[1].tensor),
                    dalpha: is(3).then_some(&per[2].tensor),
                    dshift: is(4).then_some(&per[3].tensor),
                    ..Default::default()
                };
                let backward = context
                    .block_on(layer.prepare_backward((&x.tensor).into(), &dy.tensor, &targets))
                    .unwrap();
                submit(&context, &[&backward]);
                let dispatches = if asked == 1 { 1 } else { 2 + usize::from(is(3) || is(4)) };
                assert_eq!(backward.kernels().count(), dispatches, "{asked:b}");
                let expected = [&all.dx, &all.dgamma, &all.dbeta, &all.dalpha];
                let expected = expected.into_iter().chain(&all.dshift);
                let got = [&dx].into_iter().chain(&per).map(|placed| placed.get(&context));
                for (bit, (got, expected)) in (0..).zip(got.zip(expected)) {
                    match is(bit) {
                        true => assert_near(&format!("{asked:b} {bit}"), DType::F32, &got, expected),
                        false => assert!(got.iter().all(|v| v.is_nan()), "{asked:b} {bit}"),
                    }
                }
            }
        }
    }
}

/// Other kernels of the same formulas: compilers contract what they like, and storage rounds it.
#[track_caller]
fn assert_near(what: &str, dtype: DType, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // A rounding of what is stored, and what exp errs by for another rounding of its argument.
    let unit = 2.0 * dtype.unit_roundoff() as f32 + 4e-6;
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (got - expected).abs() <= unit * expected.abs() + 1e-6 * largest;
        assert!(near || got.is_nan() && expected.is_nan(), "{what}: [{i}] is {got:e}, expected {expected:e}");
    }
}

#[test]
fn windows_give_the_bits_of_one() {
    let (activation, residual) = (Activation::Relu, true);
    for (name, context) in few_contexts() {
        for (dims, layout) in [
            (&[6, 5, 7, 9][..], Layout::ChannelsFirst),
            (&[2, 2, 51, 31], Layout::ChannelsFirst),
            (&[6, 31, 9, 5], Layout::ChannelsLast),
            (&[700, 3], Layout::ChannelsFirst),
            (&[3, 1, 45, 15], Layout::ChannelsFirst),
        ] {
            for (f, dtype) in Curve::ALL.into_iter().zip([DType::F32, DType::F16]) {
                let setup = Setup { layout, dtype, activation, residual, ..Setup::new(f, dims) };
                let tuning = *context.tuning();
                let small = context.with_tuning(Tuning { window_bytes: Some(1200), splits: None, ..tuning });
                let x = context.block_on(context.zeros_as(dims, dtype)).unwrap().with_layout(layout);
                let moments = small.block_on(wgnorm::Moments::prepare(&small, &x)).unwrap().1;
                let plan = moments.plan().unwrap();
                assert!(plan.windows.len() > 1);
                let whole =
                    context.with_tuning(Tuning { tile: Some(plan.tile_words), splits: None, ..tuning });
                println!("{name} {setup:?}: {plan}");
                let (windowed, whole) = (assert_curve(&small, &setup, 5), assert_curve(&whole, &setup, 5));
                assert_eq!(windowed, whole, "{name} {setup:?}");
            }
        }
    }
}

#[test]
fn views_and_parts() {
    let context = context();
    for f in Curve::ALL {
        for (dims, layout) in [(&[6, 5, 7][..], Layout::ChannelsFirst), (&[6, 7, 5], Layout::ChannelsLast)] {
            for places in [
                [Place::Parts { cut: 2, at: 1 }; 6],
                [Place::Channels { first: 4, of: 13 }; 6],
                [
                    Place::Apart(4),
                    Place::Parts { cut: 3, at: 0 },
                    Place::At(0),
                    Place::Channels { first: 1, of: 7 },
                    Place::At(2),
                    Place::Apart(3),
                ],
            ] {
                let setup = Setup {
                    layout,
                    places,
                    residual: true,
                    activation: Activation::Silu,
                    ..Setup::new(f, dims)
                };
                assert_curve(&context, &setup, 6);
            }
        }
    }
}

#[test]
fn in_place_is_the_same_as_apart() {
    let context = context();
    for (f, dtype) in Curve::ALL.into_iter().zip([DType::F16, DType::F32]) {
        for (dims, seed) in SHAPES.into_iter().zip(1..) {
            for layout in LAYOUTS {
                for (activation, residual, masked) in [
                    (Activation::None, false, false),
                    (Activation::Gelu, true, false),
                    (Activation::Gelu, true, true),
                ] {
                    // Words that slices share, and tensors that begin inside of one.
                    for at in [0, 1] {
                        let places = [Place::At(at); 6];
                        let plain = Setup { layout, dtype, places, ..Setup::new(f, dims) };
                        let apart = Setup { activation, residual, masked, ..plain };
                        let over = Setup { in_place: true, ..apart.clone() };
                        let (a, b) =
                            (assert_curve(&context, &apart, seed), assert_curve(&context, &over, seed));
                        assert_near(&format!("{over:?}: dx"), dtype, &b.dx, &a.dx);
                        assert_eq!(a.d_residual, b.d_residual, "{over:?}");
                        // Where a mask leaves something out, it may be NaN.
                        assert!(masked || a.y == b.y, "{over:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn masked_values_enter_no_gradient() {
    for (_, context) in few_contexts() {
        for f in Curve::ALL {
            for layout in LAYOUTS {
                for (dims, activation) in [(&[5, 7, 6][..], Activation::None), (&[4, 3, 9], Activation::Silu)]
                {
                    let setup =
                        Setup { layout, masked: true, residual: true, activation, ..Setup::new(f, dims) };
                    assert_curve(&context, &setup, 7);
                }
            }
        }
    }
}

#[test]
fn every_magnitude_has_its_digits() {
    // From far below what a float can add to 1 to far beyond saturation, and around where the formulas meet.
    let context = context();
    let mut x: Vec<f32> =
        (-120..=120).flat_map(|e| [1.0, 1.37].map(|m: f32| m * (e as f32).exp2())).collect();
    x.extend((0..1000).map(|i| 0.3 + 0.001 * i as f32));
    x.extend((0..400).map(|i| 1.0 + 0.05 * i as f32));
    let x: Vec<f32> = x.iter().flat_map(|&x| [x, -x]).collect();
    let (xw, view) = (wide(&x), Shape::new(&[1, x.len()]).unwrap().channels(Layout::ChannelsLast).unwrap());
    for f in Curve::ALL {
        let alpha = upload(&context, &[1], &[1.0]);
        let shift = zeros(&context, &[1]);
        let options = CurveOptions::default();
        // Without gamma and beta the number of channels is not the layer's concern.
        let layer = Layer::from_parts(&context, f, options, [alpha, shift], [None, None]).unwrap();
        let tensor = upload(&context, &[1, x.len()], &x);
        let ones = upload(&context, &[1, x.len()], &vec![1.0; x.len()]);
        let (y, gradients) = context.block_on(async {
            let y = layer.forward((&tensor).into()).await.unwrap();
            (y, layer.backward((&tensor).into(), &ones).await.unwrap())
        });
        let p = Parameters { curve: f, alpha: 1.0, shift: 0.0, gamma: None, beta: None };
        let expected = curve::forward(&xw, view, &p);
        let y = download(&context, &y);
        assert_within(&format!("{f}: y"), &y, &expected, WhereNan::Nan, |i| {
            curve::z_bound(&p, xw[i], 0, None)
        });
        let dx = download(&context, &gradients.dx);
        let expected: Vec<_> = xw.iter().map(|&x| curve::slope(f, x)).collect();
        assert_within(&format!("{f}: dx"), &dx, &expected, WhereNan::Nan, |i| {
            curve::dx_bound(&p, xw[i], 0, 1.0, 0.0)
        });
        // The bound of y is a few units of its last place, down to what devices flush to zero.
        let bound = |x: f64| curve::z_bound(&p, x, 0, None) / curve::value(f, x);
        assert!(bound(2.0f64.powi(-100)) < 16.0 * bounds::U && bound(0.5) < 16.0 * bounds::U);
    }
}

#[test]
fn nan_and_infinity() {
    let context = context();
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for f in Curve::ALL {
        for layout in LAYOUTS {
            // A channel each: finite, with a NaN, with infinities, beyond what alpha·x can be.
            let x = [1.0, -1.0, nan, 5.0, inf, -inf, 3e38, -3e38];
            let dims = [4, 2];
            let first = upload(&context, &[1, 4, 2], &x);
            let last: Vec<_> = (0..8).map(|i| x[i % 4 * 2 + i / 4]).collect();
            let tensor = match layout {
                Layout::ChannelsFirst => first,
                _ => upload(&context, &[1, 2, 4], &last).with_layout(layout),
            };
            let at = |c: usize, k: usize| {
                if layout == Layout::ChannelsFirst { c * dims[1] + k } else { k * 4 + c }
            };
            context.block_on(async {
                let options = CurveOptions::default().alpha(4.0);
                let layer = Layer::new(&context, f, 4, options).await.unwrap();
                let y = context.download(&layer.forward((&tensor).into()).await.unwrap()).await.unwrap();
                assert!((0..2).all(|k| y[at(0, k)].is_finite()));
                assert!(y[at(1, 0)].is_nan() && y[at(1, 1)] == 1.0);
                for c in [2, 3] {
                    assert_eq!((y[at(c, 0)], y[at(c, 1)]), (1.0, -1.0), "{f} {layout}");
                }
                let dy = context.zeros_like(&tensor).await.unwrap();
                context.queue().write_buffer(dy.buffer(), 0, &bytes(&[1.0; 8]));
                let gradients = layer.backward((&tensor).into(), &dy).await.unwrap();
                let get = async |tensor: &Tensor| context.download(tensor).await.unwrap();
                let dx = get(&gradients.dx).await;
                assert!(dx[at(1, 0)].is_nan() && [0, 1].iter().all(|&k| dx[at(0, k)].is_finite()));
                assert!(
                    [2, 3].iter().all(|&c| dx[at(c, 0)] == 0.0 && dx[at(c, 1)] == 0.0),
                    "{f} {layout}: {dx:?}"
                );
                let dgamma = get(gradients.dgamma.as_ref().unwrap()).await;
                assert!(dgamma[0].is_finite() && dgamma[1].is_nan() && dgamma[2] == 0.0 && dgamma[3] == 0.0);
                assert_eq!(get(gradients.dbeta.as_ref().unwrap()).await, [2.0; 4]);
                // One number for all channels, so the NaN is in it.
                assert!(get(&gradients.dalpha).await[0].is_nan());
                // Infinities alone leave it finite.
                let finite: Vec<f32> =
                    get(&tensor).await.iter().map(|v| if v.is_nan() { 1.0 } else { *v }).collect();
                context.queue().write_buffer(tensor.buffer(), 0, &bytes(&finite));
                let gradients = layer.backward((&tensor).into(), &dy).await.unwrap();
                assert!(get(&gradients.dalpha).await[0].is_finite());
                if let Some(dshift) = &gradients.dshift {
                    assert!(get(dshift).await[0].is_finite());
                }
            });
        }
    }
}

#[test]
fn gradients_are_added_where_asked() {
    let context = context();
    for f in Curve::ALL {
        for parameters in [DType::F32, DType::F16] {
            let setup = Setup { parameters, dtype: parameters, ..Setup::new(f, &[3, 5, 7]) };
            let host = Host::new(&setup, 8);
            let written = host.run(&context);
            let layer = host.layer(&context);
            let (x, dy) = (setup.place(&context, 0, Some(&host.x)), setup.place(&context, 1, Some(&host.dy)));
            let before = |len: usize| vec![2.0; len];
            let per = [5, 5, 1, 1].map(|len| setup.parameter(&context, Some(&before(len)), len));
            let [dgamma, dbeta, dalpha, dshift] = &per;
            let targets = CurveTargets {
                dgamma: Some(&dgamma.tensor),
                dbeta: Some(&dbeta.tensor),
                dalpha: Some(&dalpha.tensor),
                dshift: (f != Curve::Tanh).then_some(&dshift.tensor),
                accumulation: Accumulation::Add,
                ..Default::default()
            };
            let backward =
                context.block_on(layer.prepare_backward((&x.tensor).into(), &dy.tensor, &targets)).unwrap();
            submit(&context, &[&backward]);
            let written =
                [&written.dgamma, &written.dbeta, &written.dalpha].into_iter().chain(&written.dshift);
            for (got, written) in per.iter().zip(written) {
                for (got, written) in got.get(&context).iter().zip(written) {
                    let unit = 2.0 * parameters.unit_roundoff() as f32 * (2.0 + written.abs());
                    assert!((got - (2.0 + written)).abs() <= unit, "{f}: {got} is not 2 + {written}");
                }
            }
        }
    }
}

#[test]
fn an_empty_batch() {
    let context = context();
    for f in Curve::ALL {
        context.block_on(async {
            let layer = Layer::new(&context, f, 3, CurveOptions::default()).await.unwrap();
            for dims in [&[0, 3][..], &[2, 3, 0]] {
                let x = context.zeros(dims).await.unwrap();
                let y = layer.forward((&x).into()).await.unwrap();
                assert_eq!(y.shape(), x.shape());
                let gradients = layer.backward((&x).into(), &x).await.unwrap();
                let per_channel = [gradients.dgamma, gradients.dbeta].map(Option::unwrap);
                for zero in per_channel.iter().chain([&gradients.dalpha]).chain(&gradients.dshift) {
                    context.queue().write_buffer(
                        zero.buffer(),
                        0,
                        &bytes(&vec![5.0; zero.shape().len() as usize]),
                    );
                }
                let mut targets = CurveTargets {
                    dgamma: Some(&per_channel[0]),
                    dalpha: Some(&gradients.dalpha),
                    dshift: gradients.dshift.as_ref(),
                    accumulation: Accumulation::Add,
                    ..Default::default()
                };
                let add = layer.prepare_backward((&x).into(), &x, &targets).await.unwrap();
                context.submit(&[&add]).await.unwrap();
                assert_eq!(context.download(&gradients.dalpha).await.unwrap(), [5.0]);
                targets.accumulation = Accumulation::Write;
                let write = layer.prepare_backward((&x).into(), &x, &targets).await.unwrap();
                context.submit(&[&write]).await.unwrap();
                assert_eq!(context.download(&gradients.dalpha).await.unwrap(), [0.0]);
                assert_eq!(context.download(&per_channel[0]).await.unwrap(), [0.0; 3]);
                assert_eq!(context.download(&per_channel[1]).await.unwrap(), [5.0; 3]);
                if let Some(dshift) = &gradients.dshift {
                    assert_eq!(context.download(dshift).await.unwrap(), [0.0]);
                }
            }
        });
    }
}

#[test]
fn any_number_of_channels() {
    // The sum over channels has several of them per invocation, and a last few.
    let context = context();
    for (dims, layout) in [
        (&[2, 1][..], Layout::ChannelsFirst),
        (&[2, 4099], Layout::ChannelsLast),
        (&[3, 1031, 2], Layout::ChannelsFirst),
    ] {
        for f in Curve::ALL {
            assert_curve(&context, &Setup { layout, ..Setup::new(f, dims) }, 9);
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for (name, context) in few_contexts() {
        for f in Curve::ALL {
            let host = Host::new(&Setup { layout: Layout::ChannelsLast, ..Setup::new(f, &[40, 9, 33]) }, 10);
            let first = host.run(&context);
            for _ in 0..3 {
                assert_eq!(host.run(&context), first, "{name}");
            }
        }
    }
}

#[test]
fn everything_in_one_buffer() {
    // Inputs are then bound read-write, alpha and shift among them.
    let context = context();
    for f in Curve::ALL {
        let host = Host::new(&Setup::new(f, &[4, 8]), 13);
        let apart = host.run(&context);
        let block = context.capabilities().storage_alignment as usize / 4;
        let whole = zeros(&context, &[14 * block.max(32)]);
        let part = |at: usize, dims: &[usize], values: &[f32]| {
            let offset = 4 * (at * block.max(32)) as u64;
            context.queue().write_buffer(whole.buffer(), offset, &bytes(values));
            Tensor::from_buffer(&context, whole.buffer().clone(), offset, dims).unwrap()
        };
        let of_all = [part(0, &[1], &[host.alpha]), part(1, &[1], &[host.shift])];
        let affine = [Some(part(2, &[8], &host.gamma)), Some(part(3, &[8], &host.beta))];
        let layer = Layer::from_parts(&context, f, host.options(), of_all, affine).unwrap();
        let (x, dy) = (part(4, &[4, 8], &host.x), part(5, &[4, 8], &host.dy));
        let [y, dx] = [6, 7].map(|at| part(at, &[4, 8], &[0.0; 32]));
        let [dgamma, dbeta] = [8, 9].map(|at| part(at, &[8], &[0.0; 8]));
        let [dalpha, dshift] = [10, 11].map(|at| part(at, &[1], &[0.0]));
        let targets = CurveTargets {
            dx: Some(&dx),
            dgamma: Some(&dgamma),
            dbeta: Some(&dbeta),
            dalpha: Some(&dalpha),
            dshift: apart.dshift.is_some().then_some(&dshift),
            ..Default::default()
        };
        context.block_on(async {
            let forward = layer.prepare_forward((&x).into(), &y).await.unwrap();
            let backward = layer.prepare_backward((&x).into(), &dy, &targets).await.unwrap();
            assert!(forward.kernels().chain(backward.kernels()).any(|key| key.ends_with("shared")));
            context.submit(&[&forward, &backward]).await.unwrap();
        });
        let got = Outputs {
            y: download(&context, &y),
            dx: download(&context, &dx),
            d_residual: None,
            dgamma: download(&context, &dgamma),
            dbeta: download(&context, &dbeta),
            dalpha: download(&context, &dalpha),
            dshift: targets.dshift.map(|dshift| download(&context, dshift)),
        };
        assert_eq!(got, apart);
    }
}

#[test]
fn what_passes_move_and_hold() {
    let context = context();
    let tensors: [Tensor; 5] = std::array::from_fn(|_| zeros(&context, &[8, 5, 33]));
    let [x, residual, dy, dx, d_residual] = &tensors;
    let dalpha = zeros(&context, &[1]);
    let bytes = x.byte_len();
    let moved = |prepared: &Prepared| {
        let traffic = prepared.traffic();
        [traffic.floor_bytes / bytes, traffic.plan_bytes / bytes]
    };
    context.block_on(async {
        let plain = Layer::new(&context, Curve::Tanh, 5, CurveOptions::default()).await.unwrap();
        let forward = plain.prepare_forward(x.into(), dx).await.unwrap();
        assert_eq!((forward.op(), moved(&forward)), (Op::CurveForward, [2, 2]));
        assert_eq!((forward.kernels().count(), forward.workspace_bytes()), (1, 0));
        let targets = CurveTargets { dx: Some(dx), dalpha: Some(&dalpha), ..Default::default() };
        let backward = plain.prepare_backward(x.into(), dy, &targets).await.unwrap();
        assert_eq!((backward.op(), moved(&backward)), (Op::CurveBackward, [3, 3]));
        let partials = backward.plan().unwrap().workspace_bytes(Op::CurveBackward);
        let totals = 5 * 16;
        assert!(partials > 0 && backward.workspace_bytes() == partials + totals);
        // Slices share words.
        let over = CurveTargets { dx: Some(dy), ..targets };
        let over = plain.prepare_backward(x.into(), dy, &over).await.unwrap();
        assert_eq!(moved(&over), [3, 5]);

        let options = CurveOptions::default().activation(Activation::Relu);
        let fused = Layer::new(&context, Curve::Erf, 5, options).await.unwrap();
        let forward = fused.prepare_forward(x.plus(residual), dx).await.unwrap();
        assert_eq!(moved(&forward), [3, 3]);
        let targets = CurveTargets { d_residual: Some(d_residual), ..targets };
        let backward = fused.prepare_backward(x.plus(residual), dy, &targets).await.unwrap();
        assert_eq!(moved(&backward), [5, 5]);
        let plan = context.plan(Op::CurveBackward, x, true).unwrap().unwrap();
        assert_eq!(&plan, backward.plan().unwrap());
    });
}

#[test]
fn a_prepared_pass_sees_what_an_optimizer_has_written() {
    let context = context();
    for f in Curve::ALL {
        context.block_on(async {
            let layer = Layer::new(&context, f, 2, CurveOptions::default().shift(0.5)).await.unwrap();
            let x = context.upload(&[1, 2], &[1.0, -2.0]).await.unwrap();
            let y = context.zeros(&[1, 2]).await.unwrap();
            let forward = layer.prepare_forward((&x).into(), &y).await.unwrap();
            for alpha in [0.5, 2.0] {
                context.queue().write_buffer(layer.alpha().buffer(), 0, &bytes(&[alpha]));
                context.submit(&[&forward]).await.unwrap();
                let shift = if f == Curve::Tanh { 0.0 } else { 0.5 };
                for (y, x) in context.download(&y).await.unwrap().iter().zip([1.0, -2.0]) {
                    let expected = curve::value(f, f64::from(alpha) * x + shift);
                    assert!((f64::from(*y) - expected).abs() < 1e-6, "{f}: {y} is not {expected}");
                }
            }
        });
    }
}

#[test]
fn kernels_agree_with_pytorch() {
    let context = context();
    let file: serde_json::Value = serde_json::from_str(include_str!("../data/curves/cases.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let of = |values: &serde_json::Value| -> Vec<f64> {
            values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let input = |name: &str| of(&case["inputs"][name]).into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let f = Curve::ALL.into_iter().find(|f| f.name() == case["curve"]).unwrap();
        let is_fused = case["activation"] == "gelu";
        let dims: Vec<_> = of(&case["shape"]).into_iter().map(|dim| dim as usize).collect();
        let tensor = |name: &str, dims: &[usize]| upload(&context, dims, &input(name));
        let per_channel = |name: &str| Some(tensor(name, &dims[1..2]));
        let activation = if is_fused { Activation::Gelu } else { Activation::None };
        let layer = Layer::from_parts(
            &context,
            f,
            CurveOptions::default().activation(activation),
            [tensor("alpha", &[1]), tensor("shift", &[1])],
            [per_channel("gamma"), per_channel("beta")],
        )
        .unwrap();
        let (x, dy, residual) = (tensor("x", &dims), tensor("dy", &dims), tensor("residual", &dims));
        let input = if is_fused { x.plus(&residual) } else { (&x).into() };
        let (y, gradients) = context.block_on(async {
            (layer.forward(input).await.unwrap(), layer.backward(input, &dy).await.unwrap())
        });
        let hold = |name: &str, got: &Tensor| {
            let expected = of(&case["results"][name]);
            assert_within(&format!("{f} {name}"), &download(&context, got), &expected, WhereNan::Nan, |i| {
                3e-6 * expected[i].abs().max(1.0)
            });
        };
        hold("y", &y);
        hold("dx", &gradients.dx);
        hold("dgamma", gradients.dgamma.as_ref().unwrap());
        hold("dbeta", gradients.dbeta.as_ref().unwrap());
        hold("dalpha", &gradients.dalpha);
        assert_eq!(gradients.dshift.is_some(), f != Curve::Tanh);
        gradients.dshift.iter().for_each(|dshift| hold("dshift", dshift));
        if is_fused {
            hold("dresidual", gradients.d_residual.as_ref().unwrap());
        }
    }
}

#[test]
fn autotuning_measures_on_twins() {
    let context = headless().with_autotuning(Autotuning::Measure);
    for f in Curve::ALL {
        let setup = Setup { layout: Layout::ChannelsLast, ..Setup::new(f, &[64, 33, 8]) };
        assert_curve(&context, &setup, 12);
        let problems = |op: &str, word: &str| {
            let pinned = context.pinned_tunings();
            pinned.iter().filter(|pin| pin.problem.starts_with(op) && pin.problem.contains(word)).count()
        };
        let word = if f == Curve::Tanh { "dynamic_tanh" } else { "derf" };
        assert_eq!((problems("curve_forward", word), problems("curve_backward", word)), (1, 1));
    }
}

#[test]
fn errors_are_told() {
    let (context, other) = (context(), own_context());
    let options = CurveOptions::default();
    let t = |dims: &[usize]| zeros(&context, dims);
    let half = |dims: &[usize]| context.block_on(context.zeros_as(dims, DType::F16)).unwrap();
    let derf = |alpha, shift, gamma, beta| Derf::from_parts(&context, options, alpha, shift, gamma, beta);
    // Parameters.
    refused!(context.block_on(DynamicTanh::new(&context, 0, options)), Error::Channels { got: 0, .. });
    refused!(context.block_on(Derf::new(&context, 1 << 60, options)), Error::TooLarge { what: "gamma", .. });
    for (options, name) in [(options.alpha(f32::NAN), "alpha"), (options.shift(f32::INFINITY), "shift")] {
        refused!(context.block_on(Derf::new(&context, 3, options)), Error::Value { what, .. } if what == name);
    }
    let slope = Activation::LeakyRelu { slope: f32::NAN };
    refused!(context.block_on(Derf::new(&context, 3, options.activation(slope))), Error::Slope { .. });
    refused!(derf(t(&[2]), t(&[1]), None, None), Error::Shape { what: "alpha", .. });
    refused!(derf(t(&[1]), t(&[1, 1]), None, None), Error::Shape { what: "shift", .. });
    refused!(derf(t(&[1]), t(&[1]), Some(t(&[3])), Some(t(&[4]))), Error::Shape { what: "beta", .. });
    refused!(derf(t(&[1]), t(&[1]), Some(t(&[3, 1])), None), Error::Shape { what: "gamma", .. });
    refused!(derf(t(&[1]), t(&[1]), None, Some(t(&[0]))), Error::Channels { got: 0, .. });
    refused!(derf(t(&[1]), half(&[1]), None, None), Error::DType { what: "shift", .. });
    refused!(derf(t(&[1]), t(&[1]), Some(half(&[3])), None), Error::DType { what: "gamma", .. });
    let foreign = zeros(&other, &[1]);
    refused!(derf(foreign.clone(), t(&[1]), None, None), Error::ForeignDevice { what: "alpha" });
    refused!(derf(t(&[1]), foreign, None, None), Error::ForeignDevice { what: "shift" });

    let (x, y) = (t(&[2, 3, 4]), t(&[2, 3, 4]));
    let layer = derf(t(&[1]), t(&[1]), Some(t(&[3])), Some(t(&[3]))).unwrap();
    let forward = |x: &Tensor, y: &Tensor| context.block_on(layer.prepare_forward(x, y));
    refused!(forward(&t(&[2, 4, 4]), &y), Error::Channels { expected: 3, got: 4, .. });
    refused!(forward(&t(&[3]), &y), Error::Rank { got: 1, .. });
    refused!(forward(&x, &t(&[2, 3])), Error::Shape { what: "y", .. });
    refused!(forward(&x, &half(&[2, 3, 4])), Error::DType { what: "y", .. });
    refused!(forward(&x, &y.clone().with_layout(Layout::ChannelsLast)), Error::Layout { what: "y", .. });
    refused!(forward(&x, &zeros(&other, &[2, 3, 4])), Error::ForeignDevice { what: "y" });
    refused!(forward(&zeros(&other, &[2, 3, 4]), &y), Error::ForeignDevice { what: "x" });
    let sixteen = derf(half(&[1]), half(&[1]), None, None).unwrap();
    refused!(context.block_on(sixteen.forward(&x)), Error::DType { what: "alpha", .. });
    refused!(
        context.block_on(layer.prepare_forward(x.plus(&t(&[2, 3])), &y)),
        Error::Shape { what: "residual", .. }
    );
    refused!(
        context.block_on(layer.prepare_forward(x.modulated(Some(&t(&[2, 3])), None), &y)),
        Error::Unsupported { what: "modulation", .. }
    );
    let mask = context.block_on(Mask::of_samples(&context, &t(&[5, 3, 4]), &[true; 5])).unwrap();
    refused!(context.block_on(layer.backward(x.masked(&mask), &y)), Error::Mask { .. });
    // alpha inside of y.
    let inside = Tensor::from_buffer(&context, y.buffer().clone(), 8, &[1]).unwrap();
    let within = derf(inside, t(&[1]), None, None).unwrap();
    refused!(context.block_on(within.prepare_forward(&x, &y)), Error::Overlap { .. });

    let dx = t(&[2, 3, 4]);
    let backward = |targets: CurveTargets<'_>| context.block_on(layer.prepare_backward(&x, &y, &targets));
    let none = CurveTargets::default;
    refused!(backward(none()), Error::NoGradient);
    refused!(context.block_on(layer.backward(&x, &t(&[2, 3]))), Error::Shape { what: "dy", .. });
    refused!(backward(CurveTargets { dx: Some(&t(&[2, 3])), ..none() }), Error::Shape { what: "dx", .. });
    refused!(
        backward(CurveTargets { d_residual: Some(&dx), ..none() }),
        Error::NoParameter { gradient: "d_residual", .. }
    );
    let (three, one, two) = (t(&[3]), t(&[1]), t(&[2]));
    refused!(backward(CurveTargets { dgamma: Some(&one), ..none() }), Error::Shape { what: "dgamma", .. });
    refused!(backward(CurveTargets { dalpha: Some(&two), ..none() }), Error::Shape { what: "dalpha", .. });
    refused!(backward(CurveTargets { dshift: Some(&three), ..none() }), Error::Shape { what: "dshift", .. });
    refused!(
        backward(CurveTargets { dalpha: Some(&half(&[1])), ..none() }),
        Error::DType { what: "dalpha", expected: DType::F32, .. }
    );
    refused!(
        backward(CurveTargets { dalpha: Some(&zeros(&other, &[1])), ..none() }),
        Error::ForeignDevice { what: "dalpha" }
    );
    refused!(
        backward(CurveTargets { dalpha: Some(&one), dshift: Some(&one), ..none() }),
        Error::Overlap { first: "dalpha", second: "dshift", .. }
    );
    refused!(
        backward(CurveTargets { dx: Some(&x), ..none() }),
        Error::Overlap { first: "x", second: "dx", .. }
    );
    context.block_on(async {
        let x = context.zeros_as(&[2, 3], DType::F16).await.unwrap();
        let targets = CurveTargets { dalpha: Some(&one), dgamma: Some(&half(&[3])), ..none() };
        let half_layer = Derf::new(&context, 3, options).await.unwrap();
        refused!(half_layer.prepare_backward(&x, &x, &targets).await, Error::DType { .. });
        let bare = DynamicTanh::new(&context, 3, options.affine(Affine::None)).await.unwrap();
        assert!(bare.gamma().is_none() && bare.beta().is_none() && bare.shift().is_none());
        let x = t(&[2, 3]);
        for (targets, name) in [
            (CurveTargets { dgamma: Some(&three), ..none() }, "dgamma"),
            (CurveTargets { dbeta: Some(&three), ..none() }, "dbeta"),
            (CurveTargets { dshift: Some(&one), ..none() }, "dshift"),
        ] {
            refused!(bare.prepare_backward(&x, &x, &targets).await, Error::NoParameter { gradient, .. } if gradient == name);
        }
        refused!(bare.forward(&t(&[2, 4])).await, Error::Channels { expected: 3, got: 4, .. });
    });
    // Nothing has changed.
    assert_eq!(download(&context, &y), vec![0.0; 24]);
    assert_eq!(download(&context, &three), vec![0.0; 3]);
}
