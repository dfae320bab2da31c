//! A problem with its data and what must come out, on the host: no context, no thread, no file.

use super::data::Draw;
use super::expected::Expected;
use super::inputs::Inputs;
use super::{batch, curve, graph, pooled, second, slices, spectral, switchable};
use crate::base::activation::Activation;
use crate::base::error::{Error, Result};
use crate::base::variance::RunningVariance;
use crate::spec::{Norm, Passes, Spec, Statistics, Wanted};

/// A spec with its inputs and what must come out of them.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is run.
    pub spec: Spec,
    /// The tensors that go in.
    pub inputs: Inputs,
    /// What must come out.
    pub expected: Vec<Expected>,
}

impl Problem {
    /// The values of a draw, with dy 0 where rounding could send a derivative either way, and what f64 makes of them.
    ///
    /// ```
    /// use wgnorm::eval::{Draw, Problem};
    /// let problem = Problem::new(&"layer 4x8 relu backward".parse()?, &Draw::default())?;
    /// let y = problem.expected.iter().find(|expected| expected.name == "y").unwrap();
    /// assert!(y.compare(&y.results()).passes());
    /// assert!(!y.compare(&[0.5; 32]).passes());
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Spec::check`]; [`Error::Spec`] for what has no expectation here: a mask or batch renorm with something fused, shards and sequences with an
    /// activation, and a backward pass of a sequence.
    pub fn new(spec: &Spec, draw: &Draw) -> Result<Self> {
        spec.check()?;
        Self::of(spec, draw, Inputs::draw(spec, draw))
    }

    /// The same of values that are given, in f32 as the spec's types have them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// Unless the lengths are those of the spec.
    pub fn from_inputs(spec: &Spec, inputs: Inputs) -> Result<Self> {
        spec.check()?;
        Self::of(spec, &Draw::default(), inputs)
    }

    fn of(spec: &Spec, draw: &Draw, mut inputs: Inputs) -> Result<Self> {
        let plain = spec.activation == Activation::None
            && !(spec.residual || spec.in_place)
            && spec.wanted == Wanted::All;
        let renorm = matches!(spec.statistics, Statistics::Renorm(..));
        if (spec.mask.is_some() && spec.norm == Norm::Batch || renorm) && !plain {
            let reason =
                "a mask and batch renorm go with nothing fused, in place or once more here".to_owned();
            return Err(Error::Spec { reason });
        }
        let several = matches!(spec.statistics, Statistics::Synchronised(_) | Statistics::Sequence(_));
        if several && spec.activation != Activation::None {
            let reason = "shards and sequences go without an activation here".to_owned();
            return Err(Error::Spec { reason });
        }
        if matches!(spec.statistics, Statistics::Sequence(_)) && spec.passes == Passes::Backward {
            return Err(Error::Spec { reason: "a sequence has no backward pass".to_owned() });
        }
        let mut expected = match (&spec.norm, &spec.statistics) {
            (Norm::Batch, Statistics::Synchronised(_)) => pooled::synchronised(spec, &inputs),
            (Norm::Batch, Statistics::Sequence(_)) => pooled::sequence(spec, &inputs),
            (Norm::Batch, Statistics::Ghost(size)) => pooled::ghost(spec, draw, &mut inputs, *size),
            (Norm::Batch, Statistics::Renorm(r_max, d_max)) => {
                pooled::renorm(spec, &inputs, (*r_max, *d_max))
            }
            (Norm::Batch, _) => match inputs.keep.clone() {
                Some(keep) => pooled::masked(spec, &inputs, &keep),
                None => batch::train(spec, draw, &mut inputs),
            },
            (Norm::FrozenBatch, _) => batch::frozen(spec, &mut inputs),
            (Norm::Switchable(variance), _) => {
                switchable::expect(spec, *variance == RunningVariance::Unbiased, draw, &mut inputs)
            }
            (Norm::Graph, _) => graph::expect(spec, draw, &mut inputs),
            (norm, _) => match (norm.curve(), norm.spectral()) {
                (Some(curve), _) => curve::expect(spec, curve, &mut inputs),
                (None, Some(options)) => {
                    let eps = spec.eps.value(spec.dtype);
                    spectral::expect(spec, options.eps(eps), &inputs)
                }
                (None, None) => slices::expect(spec, draw, &mut inputs),
            },
        };
        if matches!(spec.statistics, Statistics::Accumulated(_)) {
            // What each micro-batch saves is that of all of them.
            expected.retain(|expected| !expected.name.starts_with("save_"));
        }
        if spec.has_second() {
            expected.retain(|expected| expected.pass() == "forward");
            expected.extend(second::expect(spec, &inputs));
        }
        Ok(Self { spec: spec.clone(), inputs, expected })
    }

    /// Whether an output is expected.
    pub fn expects(&self, name: &str) -> bool {
        self.expected.iter().any(|expected| expected.name == name)
    }

    /// What an output must be.
    pub fn expectation(&self, name: &str) -> Option<&Expected> {
        self.expected.iter().find(|expected| expected.name == name)
    }
}
