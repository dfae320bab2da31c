//! One norm of the family with everything around it, run on poisoned tensors and held against the reference.

use wgnorm::reference::activation::kinks;
use wgnorm::reference::family::{self, Affine as Parameters, Maps, Scheme, bounds as family_bounds};
use wgnorm::reference::{WhereNan, bounds, compare_as, map};
use wgnorm::{
    Accumulation, Activation, Affine, Context, DType, Epsilon, GradientTargets, GroupNorm, Input,
    InstanceNorm, Kind, L2Norm, LayerNorm, Layout, MeanVarianceNorm, Norm, NormOptions, RmsNorm, SavedSlices,
    ScaleNorm, Tensor, WeightNorm, WeightStandardization,
};

use crate::fused::{Place, Placed, rounded};
use crate::support::{bits, values, wide};

/// Which norm.
#[derive(Clone, Debug, PartialEq)]
pub enum Of {
    /// Over so many trailing axes.
    Layer(usize),
    Rms(usize),
    Group(usize),
    Instance,
    MeanVariance(Vec<usize>),
    L2(Vec<usize>),
    Scale,
    Weight,
    Standardization,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Setup {
    pub of: Of,
    /// In memory order.
    pub dims: Vec<usize>,
    pub layout: Layout,
    pub dtype: DType,
    pub parameters: DType,
    pub affine: Affine,
    pub activation: Activation,
    pub unit_offset: bool,
    pub residual: bool,
    /// An addend before the norm.
    pub sum: bool,
    /// gamma and beta of each sample.
    pub modulated: bool,
    /// dx over dy, the sum over the addend.
    pub in_place: bool,
    /// dgamma and dbeta are added to what is there.
    pub accumulate: bool,
    /// Elements by which tensors are moved from whole words.
    pub offset: usize,
    /// Mean of x.
    pub shift: f32,
    /// Its standard deviation.
    pub scale: f32,
}

/// Results, widened.
#[derive(Debug)]
pub struct Outputs {
    pub y: Vec<f32>,
    pub sum: Option<Vec<f32>>,
    pub dx: Vec<f32>,
    pub d_residual: Option<Vec<f32>>,
    pub dgamma: Option<Vec<f32>>,
    pub dbeta: Option<Vec<f32>>,
}

/// What was there before gradients were added.
const BEFORE: f32 = 0.75;

impl Setup {
    pub fn new(of: Of, dims: &[usize]) -> Self {
        let affine = match of {
            Of::MeanVariance(_) | Of::L2(_) => Affine::None,
            Of::Rms(_) | Of::Scale | Of::Weight | Of::Standardization => Affine::Weight,
            _ => Affine::Both,
        };
        Self {
            of,
            dims: dims.to_vec(),
            layout: Layout::ChannelsFirst,
            dtype: DType::F32,
            parameters: DType::F32,
            affine,
            activation: Activation::None,
            unit_offset: false,
            residual: false,
            sum: false,
            modulated: false,
            in_place: false,
            accumulate: false,
            offset: 0,
            shift: 0.5,
            scale: 2.0,
        }
    }

    pub fn maps(&self) -> Maps {
        let dims = &self.dims;
        let maps = match &self.of {
            Of::Layer(axes) | Of::Rms(axes) => Maps::layer(dims, *axes),
            Of::Group(groups) => Maps::group(dims, self.layout, *groups),
            Of::Instance => Maps::instance(dims, self.layout),
            Of::MeanVariance(axes) | Of::L2(axes) => Maps::axes(dims, axes),
            Of::Scale => Maps::scalar(dims, 1),
            Of::Weight | Of::Standardization => Maps::rows(dims, dims.len() - 1),
        };
        if self.modulated { maps.modulated(dims[0]) } else { maps }
    }

    pub fn options(&self) -> NormOptions {
        let options = match self.of {
            Of::Layer(_) => NormOptions::layer(),
            Of::Rms(_) => NormOptions::rms(),
            Of::Group(_) => NormOptions::group(),
            Of::Instance => NormOptions::instance(),
            Of::MeanVariance(_) => NormOptions::mean_variance(),
            Of::L2(_) => NormOptions::l2(),
            Of::Scale => NormOptions::scale(),
            Of::Weight => NormOptions::weight(),
            Of::Standardization => NormOptions::standardization(),
        };
        options.affine(self.affine).activation(self.activation).unit_offset(self.unit_offset)
    }

    pub fn scheme(&self) -> Scheme {
        let eps = match self.options().eps {
            Epsilon::Value(eps) => f64::from(eps as f32),
            of_type => of_type.value(self.dtype),
        };
        let scheme = match self.of {
            Of::Layer(_) | Of::Group(_) | Of::Instance | Of::Standardization => Scheme::standard(eps),
            Of::Rms(_) => Scheme::rms(eps),
            Of::MeanVariance(_) => Scheme::deviation(eps),
            Of::L2(_) | Of::Scale | Of::Weight => Scheme::length(eps),
        };
        if self.unit_offset { scheme.with_unit_offset() } else { scheme }
    }

    /// The shape of gamma and beta.
    fn parameter_dims(&self) -> Vec<usize> {
        let dims = &self.dims;
        let own = match &self.of {
            Of::Layer(axes) | Of::Rms(axes) => dims[dims.len() - axes..].to_vec(),
            Of::Group(_) | Of::Instance => vec![match self.layout {
                Layout::ChannelsLast => dims[dims.len() - 1],
                _ => dims[1],
            }],
            Of::Weight | Of::Standardization => vec![dims[0]],
            _ => vec![1],
        };
        if self.modulated { [&dims[..1], &own].concat() } else { own }
    }
}

/// Inputs on the host.
pub struct Host {
    pub setup: Setup,
    pub x: Vec<f32>,
    pub addend: Vec<f32>,
    pub dy: Vec<f32>,
    pub d_sum: Vec<f32>,
    pub residual: Vec<f32>,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

impl Host {
    pub fn new(setup: &Setup, seed: u64) -> Self {
        let maps = setup.maps();
        let of = |k: u64, len: usize, shift: f32, scale: f32, dtype: DType| {
            rounded(dtype, values(seed * 10 + k, len, shift, scale))
        };
        let len = maps.len();
        let gamma_shift = if setup.unit_offset { 0.3 } else { 1.3 };
        let mut host = Self {
            x: of(0, len, setup.shift, setup.scale, setup.dtype),
            addend: of(1, len, 0.1, 1.0, setup.dtype),
            dy: of(2, len, 0.1, 1.0, setup.dtype),
            d_sum: of(3, len, -0.2, 1.0, setup.dtype),
            residual: of(4, len, 0.0, 1.0, setup.dtype),
            gamma: of(5, maps.parameters, gamma_shift, 1.0, setup.parameters),
            beta: of(6, maps.parameters, 0.0, 1.0, setup.parameters),
            setup: setup.clone(),
        };
        host.without_kinks();
        host
    }

    /// What is normalized.
    pub fn normalized(&self) -> Vec<f32> {
        match self.setup.sum {
            true => {
                let sum = self.x.iter().zip(&self.addend).map(|(x, addend)| x + addend).collect();
                rounded(self.setup.dtype, sum)
            }
            false => self.x.clone(),
        }
    }

    fn wide_parameters(&self) -> [Option<Vec<f64>>; 2] {
        let Setup { affine, .. } = self.setup;
        [affine.has_gamma().then(|| wide(&self.gamma)), affine.has_beta().then(|| wide(&self.beta))]
    }

    fn added(&self) -> Option<Vec<f64>> {
        self.setup.residual.then(|| wide(&self.residual))
    }

    /// dy without what the derivative's jump could send either way.
    fn without_kinks(&mut self) {
        let [gamma, beta] = self.wide_parameters();
        let affine = Parameters { gamma: gamma.as_deref(), beta: beta.as_deref() };
        let (z, _) =
            family::forward(&wide(&self.normalized()), &self.setup.maps(), &self.setup.scheme(), affine);
        let residual = self.added();
        for (i, dy) in self.dy.iter_mut().enumerate() {
            let z = z[i] + residual.as_ref().map_or(0.0, |r| r[i]);
            if kinks(self.setup.activation).iter().any(|kink| (z - kink).abs() < 2e-3) {
                *dy = 0.0;
            }
        }
    }

    /// Holds outputs against the reference.
    #[track_caller]
    pub fn assert(&self, what: &str, got: &Outputs) {
        let Setup { dtype, parameters, activation, .. } = self.setup;
        let (maps, scheme) = (self.setup.maps(), self.setup.scheme());
        let x = wide(&self.normalized());
        let dy = wide(&self.dy);
        let [gamma, beta] = self.wide_parameters();
        let affine = Parameters { gamma: gamma.as_deref(), beta: beta.as_deref() };
        let residual = self.added();
        let hold = |name: &str, dtype: DType, got: &[f32], expected: &[f64], bound: &dyn Fn(usize) -> f64| {
            let stored = |i: usize| bounds::stored(dtype, expected[i], bound(i));
            let worst = compare_as(dtype, got, expected, WhereNan::Nan, stored).unwrap();
            assert!(worst.passes(), "{what}: {name}: {worst}");
        };
        if let Some(sum) = &got.sum {
            assert_eq!(bits(sum), bits(&self.normalized()), "{what}: sum");
        }
        let (z, statistics) = family::forward(&x, &maps, &scheme, affine);
        let z_bound = family_bounds::z(&x, &maps, &scheme, &statistics, affine, residual.as_deref());
        let added = |i: usize| z[i] + residual.as_ref().map_or(0.0, |r| r[i]);
        let y = map::activated(&z, residual.as_deref(), activation);
        hold("y", dtype, &got.y, &y, &|i| bounds::activated(activation, added(i), z_bound[i]));

        let dz = map::dz(&z, residual.as_deref(), &dy, activation);
        let dz_error: Vec<f64> = (0..dz.len()).map(|i| bounds::dz(activation, dy[i], z_bound[i])).collect();
        if let Some(d_residual) = &got.d_residual {
            hold("d_residual", dtype, d_residual, &dz, &|i| dz_error[i]);
        }
        let mut gradients = family::backward(&x, &dz, &maps, &scheme, &statistics, affine);
        let allowed = family_bounds::backward(&x, &dz, Some(&dz_error), &maps, &scheme, &statistics, affine);
        let mut dx_bound = allowed.dx.clone();
        if self.setup.sum {
            let stored = self.setup.residual && activation != Activation::None && dtype != DType::F32;
            for (i, d_sum) in wide(&self.d_sum).into_iter().enumerate() {
                // Where it takes a map of its own, dx is stored in between.
                let between = if stored { dtype.unit_roundoff() * gradients.dx[i].abs() } else { 0.0 };
                gradients.dx[i] += d_sum;
                dx_bound[i] += between + bounds::U * (gradients.dx[i].abs() + d_sum.abs());
            }
        }
        hold("dx", dtype, &got.dx, &gradients.dx, &|i| dx_bound[i]);
        let before = if self.setup.accumulate { f64::from(BEFORE) } else { 0.0 };
        for (name, got, expected, bound) in [
            ("dgamma", &got.dgamma, &gradients.dgamma, &allowed.dgamma),
            ("dbeta", &got.dbeta, &gradients.dbeta, &allowed.dbeta),
        ] {
            let Some(got) = got else { continue };
            let expected: Vec<f64> = expected.iter().map(|value| value + before).collect();
            hold(name, parameters, got, &expected, &|p| bound[p] + 2.0 * bounds::U * expected[p].abs());
        }
    }

    /// Runs forward and backward.
    pub fn run(&self, context: &Context) -> Outputs {
        let Setup { of, dims, affine, modulated, .. } = &self.setup;
        let options = self.setup.options();
        let upload = |values: &[f32]| {
            let shape = self.setup.parameter_dims();
            context.block_on(context.upload_as(&shape, values, self.setup.parameters)).unwrap()
        };
        let gamma = affine.has_gamma().then(|| upload(&self.gamma));
        let beta = affine.has_beta().then(|| upload(&self.beta));
        let modulation = modulated.then_some((gamma.as_ref(), beta.as_ref()));
        let (gamma, beta) = match modulated {
            true => (None, None),
            false => (gamma.clone(), beta.clone()),
        };
        let options = if *modulated { options.affine(Affine::None) } else { options };
        let trailing = |axes: usize| &dims[dims.len() - axes..];
        let channels = || self.setup.parameter_dims().last().copied().unwrap();
        match of {
            Of::Layer(axes) => {
                let layer = LayerNorm::from_parts(context, trailing(*axes), options, gamma, beta).unwrap();
                self.run_layer(context, &layer, modulation)
            }
            Of::Rms(axes) => {
                let layer = RmsNorm::from_parts(context, trailing(*axes), options, gamma, beta).unwrap();
                self.run_layer(context, &layer, modulation)
            }
            Of::Group(groups) => {
                let layer =
                    GroupNorm::from_parts(context, *groups, channels(), options, gamma, beta).unwrap();
                self.run_layer(context, &layer, modulation)
            }
            Of::Instance => {
                let layer = InstanceNorm::from_parts(context, channels(), options, gamma, beta).unwrap();
                self.run_layer(context, &layer, modulation)
            }
            Of::MeanVariance(axes) => {
                let layer = context.block_on(MeanVarianceNorm::new(context, axes, options)).unwrap();
                self.run_layer(context, &layer, None)
            }
            Of::L2(axes) => {
                let layer = context.block_on(L2Norm::new(context, axes, options)).unwrap();
                self.run_layer(context, &layer, None)
            }
            Of::Scale => {
                let layer =
                    ScaleNorm::from_parts(context, dims[dims.len() - 1], options, gamma, beta).unwrap();
                self.run_layer(context, &layer, None)
            }
            Of::Weight => {
                let layer = WeightNorm::from_parts(context, dims[0], options, gamma).unwrap();
                self.run_layer(context, &layer, None)
            }
            Of::Standardization => {
                let layer = WeightStandardization::from_parts(context, dims[0], options, gamma).unwrap();
                self.run_layer(context, &layer, None)
            }
        }
    }

    fn run_layer<K: Kind>(
        &self,
        context: &Context,
        layer: &Norm<K>,
        modulation: Option<(Option<&Tensor>, Option<&Tensor>)>,
    ) -> Outputs {
        let Setup { dims, layout, dtype, parameters, affine, activation, offset, .. } = &self.setup;
        let place =
            |values: Option<&[f32]>| Placed::new(context, dims, *layout, *dtype, Place::At(*offset), values);
        let [x, addend, dy, d_sum, residual] =
            [&self.x, &self.addend, &self.dy, &self.d_sum, &self.residual].map(|values| place(Some(values)));
        let [y, sum, dx, d_residual] = [(); 4].map(|()| place(None));
        let sum = if self.setup.in_place { &addend } else { &sum };
        let dx = if self.setup.in_place { &dy } else { &dx };
        let shape = self.setup.parameter_dims();
        let gradient = || {
            let before = self.setup.accumulate.then(|| vec![BEFORE; shape.iter().product()]);
            Placed::new(context, &shape, Layout::ChannelsFirst, *parameters, Place::At(1), before.as_deref())
        };
        let (dgamma, dbeta) = (affine.has_gamma().then(gradient), affine.has_beta().then(gradient));
        let residual = self.setup.residual.then_some(&residual.tensor);
        let with = |x| {
            let input = Input { residual, ..Input::from(x) };
            modulation.map_or(input, |(gamma, beta)| input.modulated(gamma, beta))
        };
        let targets = GradientTargets {
            dx: Some(&dx.tensor),
            d_residual: residual.filter(|_| *activation != Activation::None).map(|_| &d_residual.tensor),
            dgamma: dgamma.as_ref().map(|placed| &placed.tensor),
            dbeta: dbeta.as_ref().map(|placed| &placed.tensor),
            accumulation: if self.setup.accumulate { Accumulation::Add } else { Accumulation::Write },
        };
        context
            .block_on(async {
                let saved: SavedSlices = layer.room_for(&x.tensor).await?;
                let (forward, backward);
                if self.setup.sum {
                    forward = layer
                        .prepare_forward_of_sum(
                            with(&x.tensor),
                            &addend.tensor,
                            &sum.tensor,
                            &y.tensor,
                            Some(&saved),
                        )
                        .await?;
                    backward = layer
                        .prepare_backward_of_sum(
                            with(&sum.tensor),
                            &dy.tensor,
                            &d_sum.tensor,
                            &saved,
                            &targets,
                        )
                        .await?;
                } else {
                    forward = layer.prepare_forward(with(&x.tensor), &y.tensor, Some(&saved)).await?;
                    backward = layer.prepare_backward(with(&x.tensor), &dy.tensor, &saved, &targets).await?;
                }
                context.submit(&[&forward, &backward]).await
            })
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.setup));
        let get = |placed: &Option<Placed>| placed.as_ref().map(|placed| placed.get(context));
        Outputs {
            y: y.get(context),
            sum: self.setup.sum.then(|| sum.get(context)),
            dx: dx.get(context),
            d_residual: targets.d_residual.map(|_| d_residual.get(context)),
            dgamma: get(&dgamma),
            dbeta: get(&dbeta),
        }
    }
}

/// Runs a setup and holds it against the reference.
#[track_caller]
pub fn check(context: &Context, what: &str, setup: &Setup) -> Outputs {
    let host = Host::new(setup, 1);
    let got = host.run(context);
    host.assert(&format!("{what}: {setup:?}"), &got);
    got
}
