//! The norms beside batch norm: what their cases ask for, where they come from, and how they run.

mod builtin;
mod matrix;
mod run;
mod setup;

use wgnorm::reference::family::{Maps, Scheme};
use wgnorm::{BatchNormOptions, DType, Layout, NormOptions, RunningValues};

use super::case::{Case, Problem};
use super::variant::Placement;

pub use run::run;

/// Which norm; axes are those of x in logical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Layer norm over so many trailing axes.
    Layer(usize),
    Rms(usize),
    /// Group norm with so many groups.
    Group(usize),
    Instance,
    MeanVariance(Vec<usize>),
    L2(Vec<usize>),
    Scale,
    Weight,
    Standardization,
}

/// What a norm is to do.
pub struct Work {
    pub of: Of,
    pub options: NormOptions,
    /// Whether gamma and beta are those of each sample.
    pub modulated: bool,
    pub x: Vec<f32>,
    /// Added to x before the norm, with the gradient that the sum has from elsewhere.
    pub sum: Option<Sum>,
    /// The backward pass, if there is one.
    pub dy: Option<Vec<f32>>,
    /// Instance norm's, if it keeps running statistics.
    pub tracked: Option<Tracked>,
}

pub struct Sum {
    pub addend: Vec<f32>,
    pub d_sum: Vec<f32>,
}

/// Running statistics, and how they are updated.
pub struct Tracked {
    pub options: BatchNormOptions,
    pub running: RunningValues,
}

impl Of {
    /// Its name in reports.
    pub const fn op(&self) -> &'static str {
        match self {
            Of::Layer(_) => "layer_norm",
            Of::Rms(_) => "rms_norm",
            Of::Group(_) => "group_norm",
            Of::Instance => "instance_norm",
            Of::MeanVariance(_) => "mvn",
            Of::L2(_) => "l2_norm",
            Of::Scale => "scale_norm",
            Of::Weight => "weight_norm",
            Of::Standardization => "weight_standardization",
        }
    }

    /// What tells two of one name apart, for names of cases.
    fn label(&self) -> Option<String> {
        match self {
            Of::Layer(1) | Of::Rms(1) | Of::Instance | Of::Scale | Of::Weight | Of::Standardization => None,
            Of::Layer(axes) | Of::Rms(axes) => Some(format!("last{axes}")),
            Of::Group(groups) => Some(format!("g{groups}")),
            Of::MeanVariance(axes) | Of::L2(axes) => {
                Some(format!("over{}", axes.iter().map(ToString::to_string).collect::<String>()))
            }
        }
    }

    /// Options that it begins with.
    pub const fn options(&self) -> NormOptions {
        match self {
            Of::Layer(_) => NormOptions::layer(),
            Of::Rms(_) => NormOptions::rms(),
            Of::Group(_) => NormOptions::group(),
            Of::Instance => NormOptions::instance(),
            Of::MeanVariance(_) => NormOptions::mean_variance(),
            Of::L2(_) => NormOptions::l2(),
            Of::Scale => NormOptions::scale(),
            Of::Weight => NormOptions::weight(),
            Of::Standardization => NormOptions::standardization(),
        }
    }

    /// Whether it has channels, and so the same results in each layout.
    pub const fn has_channels(&self) -> bool {
        matches!(self, Of::Group(_) | Of::Instance)
    }

    /// The reference's maps for x in logical order.
    fn maps(&self, dims: &[usize]) -> Maps {
        match self {
            Of::Layer(axes) | Of::Rms(axes) => Maps::layer(dims, *axes),
            Of::Group(groups) => Maps::group(dims, Layout::ChannelsFirst, *groups),
            Of::Instance => Maps::instance(dims, Layout::ChannelsFirst),
            Of::MeanVariance(axes) | Of::L2(axes) => Maps::axes(dims, axes),
            Of::Scale => Maps::scalar(dims, 1),
            Of::Weight | Of::Standardization => Maps::rows(dims, dims.len() - 1),
        }
    }

    /// The reference's scheme for x of a type.
    fn scheme(&self, options: &NormOptions, dtype: DType) -> Scheme {
        // As kernels have it.
        let eps = f64::from(options.eps.value(dtype) as f32);
        let scheme = match self {
            Of::Layer(_) | Of::Group(_) | Of::Instance | Of::Standardization => Scheme::standard(eps),
            Of::Rms(_) => Scheme::rms(eps),
            Of::MeanVariance(_) => Scheme::deviation(eps),
            Of::L2(_) | Of::Scale | Of::Weight => Scheme::length(eps),
        };
        if options.unit_offset { scheme.with_unit_offset() } else { scheme }
    }

    /// Lengths of the axes of gamma and beta; of one value where there are none.
    pub fn parameter_dims(&self, dims: &[usize], modulated: bool) -> Vec<usize> {
        let own = match self {
            Of::Layer(axes) | Of::Rms(axes) => &dims[dims.len() - axes..],
            Of::Group(_) | Of::Instance => &dims[1..2],
            Of::Weight | Of::Standardization => &dims[..1],
            Of::MeanVariance(_) | Of::L2(_) | Of::Scale => &[1],
        };
        if modulated { [&dims[..1], own].concat() } else { own.to_vec() }
    }
}

impl Work {
    /// Whether its tensors can lie so: each in one buffer, without gaps.
    pub const fn takes(&self, placement: Placement) -> bool {
        !matches!(placement, Placement::Parts | Placement::View { .. })
    }

    /// Numbers of elements of all tensors that are placed.
    pub fn tensors(&self, problem: &Problem) -> Vec<usize> {
        let parameters = self.of.parameter_dims(&problem.dims, self.modulated).iter().product();
        // x, the addend, their sum, y, the residual, dy, the sum's gradient, dx, the residual's, and x, y, dy, the sum's gradient and dx
        // (twice) once more.
        [vec![problem.elements(); 15], vec![parameters; 4]].concat()
    }
}

/// The built-in cases; with `full`, every combination of a few choices beside all pairs of many.
pub fn cases(full: bool) -> Vec<Case> {
    let mut cases = builtin::cases();
    cases.extend(matrix::pairs());
    if full {
        cases.extend(matrix::full());
    }
    cases
}
