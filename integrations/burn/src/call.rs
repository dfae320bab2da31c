//! A layer's forward pass, by the kernels where they take what it has.

use burn::backend::Dispatch;
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use wgnorm::Activation;

use crate::device::is_shared;
use crate::fallback::{fall_back, finished};
use crate::input::Input;
use crate::ops::{Maybe, NormOps, Operands};
use crate::problem::{Norm, Problem, element};
use crate::statistics::Source;

/// What a layer asks for.
pub struct Call {
    /// Its name.
    pub layer: &'static str,
    /// Whether x has the shape that it expects; if not, burn's own layer says so.
    pub fits: bool,
    pub norm: Norm,
    pub epsilon: f64,
    pub activation: Activation,
    pub gamma: Option<Tensor<1>>,
    pub beta: Option<Tensor<1>>,
    pub alpha: Option<Tensor<1>>,
    /// Mean and variance, of f32.
    pub running: Option<[Tensor<1>; 2]>,
    /// What is done with what comes of it that only the kernels give.
    pub needs: Option<&'static str>,
}

/// What comes of it.
pub struct Called<const D: usize> {
    pub y: Tensor<D>,
    /// What forward left for backward, if the kernels did it and there is a graph.
    pub saved: Option<Tensor<2>>,
    /// The running mean and variance after the batch.
    pub running: Option<[Tensor<1>; 2]>,
}

impl Call {
    /// Of a layer with these parameters, or none.
    pub fn new(layer: &'static str, fits: bool, norm: Norm, [gamma, beta]: [Option<Tensor<1>>; 2]) -> Self {
        let (epsilon, activation) = (0.0, Activation::None);
        Self { layer, fits, norm, epsilon, activation, gamma, beta, alpha: None, running: None, needs: None }
    }

    /// The pass by the kernels; where they do not take it, by a layer of burn's, with what comes after it.
    ///
    /// # Panics
    /// Where [`set_strict`](crate::fallback::set_strict) forbids that, or burn has nothing of the kind; if the residual is of another shape.
    pub fn run<const D: usize>(
        self,
        input: Input<D>,
        burns: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Called<D> {
        self.check(&input);
        if let Some(reason) = self.reason(&input) {
            self.needs_no_kernels(&input, &reason);
            fall_back(self.layer, &reason);
            let y = finished(burns(input.x), input.residual, self.activation);
            return Called { y, saved: None, running: None };
        }
        let Self { norm, epsilon, activation, gamma, beta, alpha, running, .. } = self;
        let Input { x, residual, mask } = input;
        let tracks = |of: &Option<Tensor<1>>| of.as_ref().is_some_and(|of| of.device().is_autodiff());
        let keeps = matches!(norm, Norm::Batch { .. })
            || x.device().is_autodiff()
            || residual.as_ref().is_some_and(|residual| residual.device().is_autodiff())
            || [&gamma, &beta, &alpha].into_iter().any(tracks);
        let problem = Problem { norm, epsilon, activation, mask: mask.map(|mask| mask.0), keeps };
        let vector = |of: Option<Tensor<1>>| Maybe::of(of.map(Tensor::into_dispatch));
        let [mean, var] = running.map_or([None, None], |running| running.map(Some)).map(vector);
        let outputs = Dispatch::wgnorm_forward(
            Operands {
                x: x.into_dispatch(),
                gamma: vector(gamma),
                beta: vector(beta),
                alpha: vector(alpha),
                residual: Maybe::of(residual.map(Tensor::into_dispatch)),
                mean,
                var,
            },
            problem,
        );
        let [mean, var] = [outputs.mean, outputs.var].map(|of| of.get().map(Tensor::from_dispatch));
        Called {
            y: Tensor::from_dispatch(outputs.y),
            saved: outputs.saved.get().map(Tensor::from_dispatch),
            running: mean.zip(var).map(|(mean, var)| [mean, var]),
        }
    }

    /// Requires tensors that go together.
    fn check<const D: usize>(&self, input: &Input<D>) {
        let (layer, device) = (self.layer, input.x.device());
        if let Some(residual) = &input.residual {
            let (expected, got) = (input.x.dims(), residual.dims());
            let shape = "a residual of the shape of x";
            assert_eq!(expected, got, "{layer}: expected {shape}, {expected:?}, got {got:?}");
            let got = residual.device();
            assert_eq!(device, got, "{layer}: expected a residual on the device of x");
        }
        if let (Some(mask), true) = (&input.mask, self.fits) {
            let dims = input.x.dims();
            let rows = dims[..D - 1].iter().product::<usize>() as u64;
            let got = [mask.0.samples(), mask.0.positions()];
            let expected = match self.norm {
                Norm::Batch { .. } | Norm::Frozen => {
                    [dims[0] as u64, dims[2..].iter().product::<usize>() as u64]
                }
                Norm::Layer | Norm::Rms | Norm::Tanh => [rows, 1],
                Norm::Group(_) => panic!("{layer}: takes no mask, since its slices are of one sample each"),
            };
            let fits =
                got == expected || matches!(self.norm, Norm::Layer | Norm::Rms) && got[0] * got[1] == rows;
            assert!(
                fits,
                "{layer}: expected a mask of samples (or rows) and positions {expected:?}, got {got:?}"
            );
        }
        for parameter in [&self.gamma, &self.beta, &self.alpha].into_iter().flatten() {
            let got = parameter.device();
            assert_eq!(
                device, got,
                "{layer}: expected parameters on the device of x: Module::to_device, fork"
            );
        }
    }

    /// Why the kernels do not take it.
    fn reason<const D: usize>(&self, input: &Input<D>) -> Option<String> {
        if !self.fits {
            return Some(format!("an x of {:?}", input.x.dims()));
        }
        let device = input.x.device();
        if !is_shared(&device) {
            return Some(format!("a device that is not shared (wgnorm_burn::init): {device:?}"));
        }
        let of_x = input.x.dtype();
        if element(of_x).is_none() {
            return Some(format!("an x of {of_x:?}, expected F32, F16 or BF16"));
        }
        let residual = input.residual.as_ref().map(Tensor::dtype).filter(|dtype| *dtype != of_x);
        if let Some(dtype) = residual {
            return Some(format!("a residual of {dtype:?}, expected {of_x:?}"));
        }
        let epsilon = self.epsilon as f32;
        if epsilon != 0.0 && !epsilon.is_normal() || self.epsilon < 0.0 {
            return Some(format!(
                "an epsilon of {}, expected 0 or a positive, normal number of f32",
                self.epsilon
            ));
        }
        let mut parameters = [&self.gamma, &self.beta, &self.alpha].into_iter().flatten().map(Tensor::dtype);
        let first = parameters.clone().next();
        let expected = first.filter(|first| *first == of_x).unwrap_or(DType::F32);
        let other = parameters.find(|dtype| *dtype != expected)?;
        Some(format!("a parameter of {other:?}, expected {expected:?}"))
    }

    /// Requires that burn's own operations can do it, or that they say why not.
    fn needs_no_kernels<const D: usize>(&self, input: &Input<D>, reason: &str) {
        let is_empty = input.x.dims().contains(&0);
        if !self.fits && !is_empty {
            return;
        }
        let what = match (self.needs, &self.norm) {
            (Some(needs), _) => needs,
            _ if input.mask.is_some() => "a mask",
            (_, Norm::Batch { statistics, .. }) if !matches!(statistics, Source::Batch) => {
                "statistics other than the batch's"
            }
            _ => return,
        };
        if let Norm::Batch { statistics: Source::Synchronised(turn), .. } = &self.norm {
            turn.fail(reason);
        }
        panic!("{}: {what} needs wgnorm's kernels, and they do not take {reason}", self.layer);
    }
}

/// The value of a parameter that a layer may have.
pub fn value(parameter: &Option<Param<Tensor<1>>>) -> Option<Tensor<1>> {
    parameter.as_ref().map(Param::val)
}

/// Whether the last axis is of a length, and none is empty.
pub fn fits_last<const D: usize>(x: &Tensor<D>, length: usize) -> bool {
    let dims = x.dims();
    dims.iter().all(|&length| length > 0) && dims[D - 1] == length
}

/// Whether the second axis is of a length, and none is empty.
pub fn fits_channels<const D: usize>(x: &Tensor<D>, channels: usize) -> bool {
    let dims = x.dims();
    D >= 2 && dims.iter().all(|&length| length > 0) && dims[1] == channels
}
