//! A problem's tensors as bytes, by the names that its recipes have for them, and outputs found among what these leave.
//!
//! So a program that runs recipes without this crate, such as a page, is held against the same expectations as the layers.

use std::collections::BTreeMap;

use super::layout;
use super::problem::Problem;
use super::run::{Outcome, Outputs};
use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::shape::Layout;
use crate::spec::{Norm, Passes};

/// Bytes as they lie in a buffer, by the name of the operand: whole words.
pub type Operands = BTreeMap<String, Vec<u8>>;

impl Problem {
    /// What goes into its recipes. Other operands begin as anything, saved statistics apart, which the forward pass leaves for the backward pass.
    ///
    /// ```
    /// use wgnorm::eval::{Draw, Problem};
    /// let problem = Problem::new(&"layer 4x8 f16 backward".parse()?, &Draw::default())?;
    /// let operands = problem.operands();
    /// assert_eq!(operands["x"].len(), 4 * 8 * 2);
    /// let left = [("y".to_owned(), operands["x"].clone())].into();
    /// // x is no y.
    /// assert!(!problem.hold_forward(&left).passes());
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    pub fn operands(&self) -> Operands {
        let Self { spec, inputs, .. } = self;
        let mut operands = Operands::new();
        let tangents = inputs.tangents.as_ref();
        let walked = [
            ("x", Some(&inputs.x)),
            ("residual", inputs.residual.as_ref()),
            ("gate", inputs.gate.as_ref()),
            ("addend", inputs.addend.as_ref()),
            ("dy", inputs.dy.as_ref()),
            ("d_sum", inputs.d_sum.as_ref()),
            ("x_tangent", tangents.map(|tangents| &tangents.x)),
        ];
        for (name, values) in walked {
            if let Some(values) = values {
                let values = layout::rearranged(values, &spec.shape, Layout::ChannelsFirst, spec.layout);
                operands.insert(name.to_owned(), words(spec.dtype.encode(&values)));
            }
        }
        let of_parameters = [
            ("gamma", inputs.gamma.as_ref()),
            ("beta", inputs.beta.as_ref()),
            ("gamma_tangent", tangents.and_then(|tangents| tangents.gamma.as_ref())),
            ("beta_tangent", tangents.and_then(|tangents| tangents.beta.as_ref())),
        ];
        for (name, values) in of_parameters {
            if let Some(values) = values {
                operands.insert(name.to_owned(), words(spec.parameters.encode(values)));
            }
        }
        if !inputs.alpha.is_empty() {
            operands.insert("alpha".to_owned(), words(spec.parameters.encode(&inputs.alpha)));
        }
        if !inputs.shift.is_empty() {
            operands.insert("shift".to_owned(), words(spec.parameters.encode(&inputs.shift)));
        }
        let running = &inputs.running;
        if !running.mean.is_empty() {
            let moments = running.mean.iter().chain(&running.var).flat_map(|value| value.to_le_bytes());
            let batches = running.mean.iter().flat_map(|_| running.batches.to_le_bytes());
            operands.insert("running statistics".to_owned(), moments.chain(batches).collect());
        }
        let (u, v) = &inputs.directions;
        if !u.is_empty() {
            operands.insert("directions".to_owned(), DType::F32.encode(&[&u[..], v].concat()));
        }
        if let Some(keep) = &inputs.keep {
            // A word that is 0, then a bit for each position.
            let mut mask = vec![0; 4 + keep.len().div_ceil(32) * 4];
            for (i, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
                mask[4 + i / 8] |= 1 << (i % 8);
            }
            operands.insert("mask".to_owned(), mask);
        }
        operands
    }

    /// Outputs among the operands that the forward recipe has left, those it has: what is written over another has its name.
    pub fn forward_outputs(&self, left: &Operands) -> Outputs {
        let spec = &self.spec;
        let over =
            |name, written_over| if spec.in_place && !spec.sum { [name, written_over] } else { [name; 2] };
        let y = if spec.int8.is_some() { DType::I8 } else { spec.dtype };
        let mut outputs = Outputs::new();
        outputs.extend(self.batch(left, "y", &over("y", "x"), y));
        outputs.extend(self.batch(left, "sum", &["sum", "addend"], spec.dtype));
        outputs.extend(left.get("scales").map(|bytes| ("scales".to_owned(), DType::F32.decode(bytes))));
        if let Some(bytes) = left.get("running statistics").filter(|_| spec.norm.tracks()) {
            let values = DType::F32.decode(bytes);
            let channels = values.len() / 3;
            outputs.push(("running_mean".to_owned(), values[..channels].to_vec()));
            outputs.push(("running_var".to_owned(), values[channels..2 * channels].to_vec()));
        }
        if let Some(bytes) = left.get("directions") {
            let (values, rows) = (DType::F32.decode(bytes), self.inputs.directions.0.len());
            outputs.push(("u".to_owned(), values[..rows].to_vec()));
            outputs.push(("v".to_owned(), values[rows..].to_vec()));
        }
        outputs
    }

    /// Gradients among the operands that the backward recipe has left.
    pub fn backward_outputs(&self, left: &Operands) -> Outputs {
        let spec = &self.spec;
        let mut outputs = Outputs::new();
        if spec.passes == Passes::Forward {
            return outputs;
        }
        let own: usize = spec.parameter_shape().iter().product();
        let parameter = |name: &str, operand: &str, len: usize| {
            let values = left.get(operand).map(|bytes| spec.parameters.decode(bytes));
            values.map(|values| (name.to_owned(), values[..len].to_vec()))
        };
        if spec.passes == Passes::Second {
            outputs.extend(self.batch(left, "second_dy", &["ddy"], spec.dtype));
            outputs.extend(self.batch(left, "second_dx", &["dx"], spec.dtype));
            outputs.extend(parameter("second_dweight", "dgamma", own));
            outputs.extend(parameter("second_dbias", "dbeta", own));
            return outputs;
        }
        outputs.extend(self.batch(left, "dx", &["dx", "d_sum", "dy"], spec.dtype));
        outputs.extend(self.batch(left, "dresidual", &["d_residual"], spec.dtype));
        outputs.extend(self.batch(left, "dgate", &["d_gate"], spec.dtype));
        for (name, operand, len) in [
            ("dweight", "dgamma", own),
            ("dbias", "dbeta", own),
            ("dalpha", "dalpha", 1),
            ("dshift", "dshift", 1),
        ] {
            outputs.extend(parameter(name, operand, len));
        }
        outputs
    }

    /// Holds what the forward recipe has left against what is expected, with all that it must have left.
    pub fn hold_forward(&self, left: &Operands) -> Outcome {
        let spec = &self.spec;
        let tracks = spec.norm.tracks();
        let spectral = spec.norm.spectral().is_some();
        let wanted = [
            ("y", true),
            ("sum", spec.sum),
            ("running_mean", tracks),
            ("running_var", tracks),
            ("u", spectral),
            ("v", spectral),
        ];
        self.hold(self.forward_outputs(left), &wanted)
    }

    /// Holds what the backward recipe has left against what is expected, with all gradients that there are.
    pub fn hold_backward(&self, left: &Operands) -> Outcome {
        let spec = &self.spec;
        // Elsewhere the residual's gradient is dy itself.
        let activated = spec.activation != Activation::None || spec.mask.is_some();
        if spec.passes == Passes::Second {
            let wanted = [
                ("second_dy", true),
                ("second_dx", true),
                ("second_dweight", spec.affine.has_gamma()),
                ("second_dbias", spec.affine.has_beta()),
            ];
            return self.hold(self.backward_outputs(left), &wanted);
        }
        let wanted = [
            ("dx", true),
            ("dresidual", spec.residual && activated),
            ("dgate", spec.gate.is_some()),
            ("dweight", spec.affine.has_gamma()),
            ("dbias", spec.affine.has_beta()),
            ("dalpha", spec.norm.curve().is_some()),
            ("dshift", spec.norm == Norm::Derf),
        ];
        self.hold(self.backward_outputs(left), &wanted)
    }

    fn hold(&self, outputs: Outputs, wanted: &[(&str, bool)]) -> Outcome {
        let mut outcome = Outcome::default();
        for (name, _) in wanted.iter().filter(|(_, is)| *is) {
            match (self.expectation(name), outputs.iter().find(|(of, _)| of == name)) {
                (Some(expected), Some((_, got))) => outcome.compared.push(expected.compare(got)),
                (_, None) => outcome.errors.push(format!("{name}: it is not computed")),
                // Where this is all that is not expected, y at least is.
                (None, Some(_)) => {}
            }
        }
        if outcome.compared.is_empty() {
            outcome.errors.push("nothing that is expected has been computed".to_owned());
        }
        outcome.outputs = outputs;
        outcome
    }

    /// A batch that was left under the first of these names, in logical order.
    fn batch(&self, left: &Operands, name: &str, names: &[&str], dtype: DType) -> Option<(String, Vec<f32>)> {
        let bytes = names.iter().find_map(|name| left.get(*name))?;
        let (shape, layout) = (&self.spec.shape, self.spec.layout);
        let values = &dtype.decode(bytes)[..shape.iter().product()];
        Some((name.to_owned(), layout::rearranged(values, shape, layout, Layout::ChannelsFirst)))
    }
}

/// Bytes with zeros behind them up to a whole word.
fn words(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4).max(4), 0);
    bytes
}
