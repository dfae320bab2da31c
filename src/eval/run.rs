//! Running a problem on a device, on outputs filled with NaN, and holding the results against what is expected.

use super::arena::{Arena, Role};
use super::expected::Compared;
use super::inputs::Part;
use super::problem::Problem;
use super::{layout, parts};
use crate::base::activation::Activation;
use crate::base::error::Result;
use crate::base::shape::Layout;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::pass::input::Input;
use crate::pass::{Accumulation, GradientTargets, SecondTargets, Tangents, Train, TrainForward};
use crate::plan::Tuning;
use crate::spec::{Layer, Norm, Parameters, Place, Spec, Statistics, Wanted};
use crate::statistics::running::RunningValues;
use crate::statistics::saved::Saved;

/// Outputs by name, in logical order.
pub type Outputs = Vec<(String, Vec<f32>)>;

/// In which layout, place and plan a problem is run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// Order of the axes in memory.
    pub layout: Layout,
    /// Where tensors lie.
    pub place: Place,
    /// What is forced.
    pub tuning: Tuning,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Keys of the kernels, in the order of their first use.
    pub kernels: Vec<String>,
    /// Everything that was computed.
    pub outputs: Outputs,
    /// How it compares, an entry for each expected output that was computed.
    pub compared: Vec<Compared>,
    /// What went wrong besides: an error, an output that is missing, a byte that was disturbed.
    pub errors: Vec<String>,
}

impl Outcome {
    /// Whether all is as it must be.
    pub fn passes(&self) -> bool {
        self.errors.is_empty() && self.compared.iter().all(Compared::passes)
    }

    /// A line for each thing that is wrong: output, worst index, both values, bound and kernels.
    pub fn failures(&self) -> Vec<String> {
        let kernels = self.kernels.join(", ");
        let wrong = self.compared.iter().filter(|compared| !compared.passes());
        let wrong = wrong.map(|compared| format!("{}: {compared}; kernels: {kernels}", compared.name));
        self.errors.iter().map(|error| format!("{error}; kernels: {kernels}")).chain(wrong).collect()
    }
}

/// Outputs of a second run that differ from the first by a bit.
pub fn other_bits(first: &Outputs, second: &Outputs) -> Vec<String> {
    let differ = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    let pairs = first.iter().zip(second);
    let other = pairs.filter(|((_, before), (_, now))| before.iter().zip(now).any(differ));
    other.map(|((name, _), _)| name.clone()).collect()
}

impl Plan {
    /// That of a spec.
    pub fn of(spec: &Spec) -> Self {
        Self { layout: spec.layout, place: spec.place, tuning: spec.tuning }
    }
}

impl Problem {
    /// Runs it as its spec says.
    pub async fn run(&self, context: &Context) -> Outcome {
        self.run_in(context, &Plan::of(&self.spec)).await
    }

    /// Runs it in another layout, place or plan than its spec says. What goes wrong is in the outcome.
    pub async fn run_in(&self, context: &Context, plan: &Plan) -> Outcome {
        let context = context.with_tuning(plan.tuning);
        let mut outcome = Outcome::default();
        match Run::new(&context, self, plan).await {
            Ok(mut run) => {
                let ran = run.everything().await;
                let disturbed = match ran {
                    Ok(()) => run.arena.disturbed().await,
                    Err(error) => Err(error),
                };
                match disturbed {
                    Ok(None) => {}
                    Ok(Some(byte)) => outcome
                        .errors
                        .push(format!("byte {byte} of a buffer was written, which belongs to no output")),
                    Err(error) => outcome.errors.push(error.to_string()),
                }
                (outcome.outputs, outcome.kernels) = (run.outputs, run.kernels);
            }
            Err(error) => outcome.errors.push(error.to_string()),
        }
        if outcome.errors.is_empty() {
            self.compare(&mut outcome);
        }
        outcome
    }

    fn compare(&self, outcome: &mut Outcome) {
        for expected in &self.expected {
            match outcome.outputs.iter().find(|(name, _)| *name == expected.name) {
                Some((_, got)) => outcome.compared.push(expected.compare(got)),
                None => outcome.errors.push(format!("{}: it is not computed", expected.name)),
            }
        }
    }
}

/// One run of a problem.
pub(super) struct Run<'a> {
    pub context: &'a Context,
    pub problem: &'a Problem,
    pub layout: Layout,
    pub arena: Arena<'a>,
    pub outputs: Outputs,
    kernels: Vec<String>,
}

impl<'a> Run<'a> {
    async fn new(context: &'a Context, problem: &'a Problem, plan: &Plan) -> Result<Self> {
        let spec = &problem.spec;
        let parts: Vec<_> = problem.inputs.parts.iter().map(|part| part.x.len()).collect();
        // x, the addend, their sum, y, the residual, dy, the sum's gradient, dx, the residual's, and x, y, dy, the sum's gradient and dx
        // (twice) once more; parameters and their gradients; alpha, the shift and theirs.
        let parameters = spec.parameter_shape().iter().product();
        let tensors = [vec![problem.inputs.x.len(); 15], parts, vec![parameters; 6], vec![1; 4]].concat();
        // What is saved: ten words for each channel or fewer for each slice, of which there are as many as values at most.
        let bytes = 4 * tensors.iter().sum::<usize>() + 40 * problem.inputs.x.len();
        let arena = Arena::new(context, plan.place, bytes, tensors.len() + 1).await?;
        let (outputs, kernels) = (Outputs::new(), Vec::new());
        Ok(Self { context, problem, layout: plan.layout, arena, outputs, kernels })
    }

    async fn everything(&mut self) -> Result<()> {
        match self.problem.spec.statistics {
            Statistics::Synchronised(_) => parts::synchronised(self).await,
            Statistics::Accumulated(count) => parts::accumulated(self, count).await,
            Statistics::Ghost(size) => parts::ghost(self, size).await,
            Statistics::Sequence(_) => self.sequence().await,
            Statistics::Own | Statistics::Given | Statistics::Renorm(..) => self.both_passes().await,
        }
    }

    /// Remembers the kernels of an operation.
    pub fn took<'k>(&mut self, kernels: impl Iterator<Item = &'k str>) {
        for kernel in kernels {
            if !self.kernels.iter().any(|known| known == kernel) {
                self.kernels.push(kernel.to_owned());
            }
        }
    }

    /// Runs a pass.
    async fn submit(&mut self, layer: &mut Layer, operation: &TrainForward) -> Result<()> {
        self.took(operation.kernels());
        layer.submit(operation).await
    }

    /// A batch with values in logical order.
    pub async fn put(&self, values: &[f32], role: Role) -> Result<Tensor> {
        self.put_shaped(&self.problem.spec.shape, values, role).await
    }

    pub async fn put_shaped(&self, shape: &[usize], values: &[f32], role: Role) -> Result<Tensor> {
        let values = layout::rearranged(values, shape, Layout::ChannelsFirst, self.layout);
        self.arena.batch(shape, self.layout, &values, self.problem.spec.dtype, role).await
    }

    /// A batch of NaN.
    pub async fn output(&self) -> Result<Tensor> {
        self.put(&vec![f32::NAN; self.problem.inputs.x.len()], Role::Written).await
    }

    pub async fn put_if(&self, values: Option<&[f32]>, role: Role) -> Result<Option<Tensor>> {
        match values {
            Some(values) => self.put(values, role).await.map(Some),
            None => Ok(None),
        }
    }

    pub async fn parameter(&self, shape: &[usize], values: &[f32], role: Role) -> Result<Tensor> {
        self.arena.parameter(shape, values, self.problem.spec.parameters, role).await
    }

    /// The layer with its parameters.
    pub async fn layer(&self) -> Result<Layer> {
        let Problem { spec, inputs, .. } = self.problem;
        let shape = spec.parameter_shape();
        let put = async |values: &Option<Vec<f32>>| match values {
            Some(values) => self.parameter(&shape, values, Role::Read).await.map(Some),
            None => Ok(None),
        };
        let several = async |shape: Option<Vec<usize>>, values: &[f32]| match shape {
            Some(shape) => self.parameter(&shape, values, Role::Read).await.map(Some),
            None => Ok(None),
        };
        let parameters = Parameters {
            gamma: put(&inputs.gamma).await?,
            beta: put(&inputs.beta).await?,
            alpha: several(spec.alpha_shape(), &inputs.alpha).await?,
            shift: several(spec.shift_shape(), &inputs.shift).await?,
            running: inputs.running.clone(),
            directions: inputs.directions.clone(),
        };
        Layer::new(self.context, spec, parameters).await
    }

    /// Forward, and backward if there is a dy.
    async fn both_passes(&mut self) -> Result<()> {
        let Problem { spec, inputs, .. } = self.problem;
        if let Some(int8) = spec.int8 {
            return self.int8_pass(int8).await;
        }
        let mut layer = self.layer().await?;
        let over_x = self.problem.spec.writes_over_x(true);
        let x = self.put(&inputs.x, if over_x { Role::Written } else { Role::Read }).await?;
        let residual = self.put_if(inputs.residual.as_deref(), Role::Read).await?;
        let gate = self.put_if(inputs.gate.as_deref(), Role::Read).await?;
        let mask = match &inputs.keep {
            Some(keep) => Some(spec.mask_of(self.context, &x, keep).await?),
            None => None,
        };
        let room = match self.arena.place {
            _ if over_x => layer.room_in_place(&x).await?,
            // All that an application has may lie in one buffer.
            Place::Shared => layer.room_in(&x, async |shape| self.arena.records(shape).await).await?,
            _ => layer.room_for(&x).await?,
        };
        let given = x.clone();
        let around = Input::from(&given).with_residual(residual.as_ref()).masked(mask.as_ref());
        let around = match (&gate, spec.gate) {
            (Some(gate), Some(order)) => around.gated(gate, order),
            _ => around,
        };
        let x = self.forward(&mut layer, x, around, Some(&room)).await?;
        if let Some(running) = layer.running().await? {
            self.push_running("", running);
        }
        if let Some((u, v)) = layer.directions().await? {
            self.push("u", u);
            self.push("v", v);
        }
        if spec.norm.saves() {
            let all = room.download(self.context).await?;
            self.push("save_mean", all.iter().map(|s| s.mean() as f32).collect());
            self.push("save_var", all.iter().map(|s| s.var).collect());
            self.push("save_invstd", all.iter().map(|s| s.inv_std).collect());
            if spec.norm == Norm::Batch {
                self.push("recoverable", all.iter().map(|s| f32::from(u8::from(s.recoverable))).collect());
            }
        }
        if self.problem.expects("y_alone") {
            let role = if spec.in_place { Role::Written } else { Role::Read };
            let x = self.put(&inputs.x, role).await?;
            self.forward(&mut layer, x, around, None).await?;
        }
        if inputs.dy.is_none() {
            return Ok(());
        }
        // What is no batch norm takes x as it was.
        let restored = over_x && spec.norm != Norm::Batch;
        let x = if restored { self.put(&inputs.x, Role::Read).await? } else { x };
        if spec.has_second() {
            return self.second(&layer, &x, &room).await;
        }
        let input = Input { x: &x, ..around };
        self.backward(&mut layer, input, &room).await
    }

    /// Runs a forward pass of x, with what is around another, alone if nothing is saved, and returns what a backward pass takes in the place of x: the sum, if there is one.
    async fn forward(
        &mut self,
        layer: &mut Layer,
        x: Tensor,
        around: Input<'_>,
        saved: Option<&Saved>,
    ) -> Result<Tensor> {
        let Problem { spec, inputs, .. } = self.problem;
        let alone = saved.is_none();
        let suffix = if alone { "_alone" } else { "" };
        let Some(addend) = &inputs.addend else {
            let y = if self.problem.spec.writes_over_x(!alone) { x.clone() } else { self.output().await? };
            let input = Input { x: &x, ..around };
            let forward = layer.prepare_train_forward(input, &y, saved).await?;
            self.submit(layer, &forward).await?;
            self.push_batch(&format!("y{suffix}"), &y).await?;
            return Ok(x);
        };
        // Where nothing is saved, x is of no more use, and the sum goes over it; else over the addend.
        let over_x = spec.in_place && alone;
        let over_addend = spec.in_place && !over_x;
        let addend = self.put(addend, if over_addend { Role::Written } else { Role::Read }).await?;
        let sum = match spec.in_place {
            true if over_x => x.clone(),
            true => addend.clone(),
            false => self.output().await?,
        };
        let y = self.output().await?;
        let input = Input { x: &x, ..around }.plus(&addend, &sum);
        let forward = layer.prepare_train_forward(input, &y, saved).await?;
        self.submit(layer, &forward).await?;
        self.push_batch(&format!("sum{suffix}"), &sum).await?;
        self.push_batch(&format!("y{suffix}"), &y).await?;
        Ok(sum)
    }

    /// Runs the backward pass, with all gradients that there are, and as often as outputs are expected of it.
    async fn backward(&mut self, layer: &mut Layer, input: Input<'_>, saved: &Saved) -> Result<()> {
        let Problem { spec, inputs, .. } = self.problem;
        let Some(upstream) = inputs.dy.as_deref() else { return Ok(()) };
        let with_residual = spec.residual || spec.gate.is_some();
        // Where an activation needs the residual, d_sum is read after dx has been written.
        let activated = spec.gate.is_some() || spec.residual && spec.activation != Activation::None;
        let over_d_sum = spec.in_place && spec.sum && !activated;
        let over_dy = spec.in_place && !over_d_sum;
        let role = |written: bool| if written { Role::Written } else { Role::Read };
        let dy = self.put(upstream, role(over_dy)).await?;
        let d_sum = self.put_if(inputs.d_sum.as_deref(), role(over_d_sum)).await?;
        let dx = match &d_sum {
            Some(d_sum) if over_d_sum => d_sum.clone(),
            _ if over_dy => dy.clone(),
            _ => self.output().await?,
        };
        let d_residual = if with_residual { Some(self.output().await?) } else { None };
        let own = spec.parameter_shape();
        let nothing = vec![f32::NAN; own.iter().product()];
        let dgamma = self.parameter(&own, &nothing, Role::Written).await?;
        let dbeta = self.parameter(&own, &nothing, Role::Written).await?;
        let several = async |shape: Option<Vec<usize>>| match shape {
            Some(shape) => {
                let nothing = vec![f32::NAN; shape.iter().product()];
                self.parameter(&shape, &nothing, Role::Written).await.map(Some)
            }
            None => Ok(None),
        };
        let dalpha = several(spec.alpha_shape()).await?;
        let dshift = several(spec.shift_shape()).await?;
        let targets = GradientTargets {
            dx: Some(&dx),
            d_residual: d_residual.as_ref().filter(|_| spec.residual),
            d_gate: d_residual.as_ref().filter(|_| spec.gate.is_some()),
            dgamma: inputs.gamma.as_ref().map(|_| &dgamma),
            dbeta: inputs.beta.as_ref().map(|_| &dbeta),
            dalpha: dalpha.as_ref(),
            dshift: dshift.as_ref(),
            ..Default::default()
        };
        self.gradients(layer, (input.with_d_sum(d_sum.as_ref()), &dy), saved, &targets, "").await?;

        let twice =
            ["dweight_twice", "dbias_twice", "dalpha_twice"].iter().any(|name| self.problem.expects(name));
        let alone = self.problem.expects("dx_alone");
        if !twice && !alone {
            return Ok(());
        }
        let dy = if over_dy { self.put(upstream, Role::Read).await? } else { dy };
        let d_sum = if over_d_sum { self.put_if(inputs.d_sum.as_deref(), Role::Read).await? } else { d_sum };
        if twice {
            // Added to what is there now; with and without the other gradients, which may be other kernels.
            let dx = if with_residual { Some(self.output().await?) } else { None };
            let targets = GradientTargets { accumulation: Accumulation::Add, dx: dx.as_ref(), ..targets };
            self.gradients(layer, (input.with_d_sum(d_sum.as_ref()), &dy), saved, &targets, "_twice").await?;
        }
        if alone {
            let dx = self.output().await?;
            let targets = GradientTargets { dx: Some(&dx), ..Default::default() };
            self.gradients(layer, (input.with_d_sum(d_sum.as_ref()), &dy), saved, &targets, "_alone").await?;
        }
        Ok(())
    }

    async fn gradients(
        &mut self,
        layer: &mut Layer,
        (input, dy): (Input<'_>, &Tensor),
        saved: &Saved,
        targets: &GradientTargets<'_>,
        suffix: &str,
    ) -> Result<()> {
        let backward = layer.prepare_backward(input, dy, saved, targets).await?;
        self.submit(layer, &backward.into()).await?;
        for (name, tensor) in
            [("dx", targets.dx), ("dresidual", targets.d_residual), ("dgate", targets.d_gate)]
        {
            if let Some(tensor) = tensor {
                self.push_batch(&format!("{name}{suffix}"), tensor).await?;
            }
        }
        for (name, tensor) in [
            ("dweight", targets.dgamma),
            ("dbias", targets.dbeta),
            ("dalpha", targets.dalpha),
            ("dshift", targets.dshift),
        ] {
            if let Some(tensor) = tensor {
                self.push(&format!("{name}{suffix}"), self.context.download(tensor).await?);
            }
        }
        Ok(())
    }

    /// Runs derivatives: forward mode, and gradients of gradients, as often as outputs are expected.
    async fn second(&mut self, layer: &Layer, x: &Tensor, saved: &Saved) -> Result<()> {
        let Problem { spec, inputs, .. } = self.problem;
        let (Some(dy), Some(values)) = (&inputs.dy, &inputs.tangents) else { return Ok(()) };
        let own = spec.parameter_shape();
        let nothing = vec![f32::NAN; own.iter().product()];
        let put = async |values: &Option<Vec<f32>>| match values {
            Some(values) => self.parameter(&own, values, Role::Read).await.map(Some),
            None => Ok(None),
        };
        let (dy, x_tangent) = (self.put(dy, Role::Read).await?, self.put(&values.x, Role::Read).await?);
        let (gamma, beta) = (put(&values.gamma).await?, put(&values.beta).await?);
        let tangents = Tangents::of_x(&x_tangent).gamma(gamma.as_ref()).beta(beta.as_ref());
        let y_tangent = self.output().await?;
        let jvp = layer.prepare_jvp(x, saved, &tangents, &y_tangent).await?;
        self.took(jvp.kernels());
        self.context.submit(&[&jvp]).await?;
        self.push_batch("y_tangent", &y_tangent).await?;

        let dgamma = self.parameter(&own, &nothing, Role::Written).await?;
        let dbeta = self.parameter(&own, &nothing, Role::Written).await?;
        let twice = spec.wanted == Wanted::Added;
        for (suffix, accumulation) in [("", Accumulation::Write), ("_twice", Accumulation::Add)] {
            if !suffix.is_empty() && !twice {
                continue;
            }
            let (ddy, dx) = (self.output().await?, self.output().await?);
            let targets = SecondTargets::new(&ddy, &dx).accumulation(accumulation);
            let targets = targets.dgamma(inputs.gamma.as_ref().map(|_| &dgamma));
            let targets = targets.dbeta(inputs.beta.as_ref().map(|_| &dbeta));
            let second = layer.prepare_double_backward(x, &dy, saved, &tangents, &targets).await?;
            self.took(second.kernels());
            self.context.submit(&[&second]).await?;
            if suffix.is_empty() {
                self.push_batch("second_dy", &ddy).await?;
                self.push_batch("second_dx", &dx).await?;
            }
            for (name, tensor) in [("dweight", targets.dgamma), ("dbias", targets.dbeta)] {
                if let Some(tensor) = tensor {
                    self.push(&format!("second_{name}{suffix}"), self.context.download(tensor).await?);
                }
            }
        }
        Ok(())
    }

    /// Batches after each other, then inference with what they left.
    async fn sequence(&mut self) -> Result<()> {
        let mut layer = self.layer().await?;
        let Some((last, steps)) = self.problem.inputs.parts.split_last() else { return Ok(()) };
        for (step, part) in steps.iter().enumerate() {
            let x = self.upload(part, &part.x).await?;
            let nothing = vec![f32::NAN; part.x.len()];
            let y = self.put_shaped(&part.shape, &nothing, Role::Written).await?;
            let forward = layer.prepare_train_forward(&x, &y, None).await?;
            self.submit(&mut layer, &forward).await?;
            if let Some(running) = layer.running().await? {
                self.push_running(&format!("_{step}"), running);
            }
        }
        let x = self.put_shaped(&last.shape, &last.x, Role::Read).await?;
        if let Some(frozen) = layer.freeze() {
            let y = self.context.download(&frozen.infer(&x).await?).await?;
            self.push("y_eval", layout::rearranged(&y, &last.shape, self.layout, Layout::ChannelsFirst));
        }
        Ok(())
    }

    /// A tensor like a part, in a buffer of its own.
    pub async fn upload(&self, part: &Part, values: &[f32]) -> Result<Tensor> {
        layout::upload(self.context, self.layout, &part.shape, values, self.problem.spec.dtype).await
    }

    pub fn push(&mut self, name: &str, values: Vec<f32>) {
        self.outputs.push((name.to_owned(), values));
    }

    pub async fn push_batch(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let values = layout::download(self.context, &self.problem.spec.shape, tensor).await?;
        self.push(name, values);
        Ok(())
    }

    pub fn push_running(&mut self, suffix: &str, running: RunningValues) {
        self.push(&format!("running_mean{suffix}"), running.mean);
        self.push(&format!("running_var{suffix}"), running.var);
    }
}
