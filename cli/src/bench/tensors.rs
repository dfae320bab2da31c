//! The tensors of a problem on the device: a layer with its parameters, and sets of what it reads and writes, over which a cold
//! cache is rotated.

use wgnorm::eval::{Inputs, Layer, Parameters};
use wgnorm::spec::Norm;
use wgnorm::tuning::{Tuning, prepare_copy};
use wgnorm::{
    Activation, Context, DType, GradientTargets, Input, Layout, Prepared, Result, Saved, SecondTargets, Spec,
    Tangents, Tensor, Train, TrainForward,
};

use super::data::{GRADIENTS, Posed, Results, SECOND_GRADIENTS};
use super::measure::scoped;
use super::naive::Naive;
use super::separate::Separate;
use super::{BenchOp, Cache, layout};

/// Most sets of tensors to rotate over. Smaller tensors would need more of them, and the costs of so many bind groups
/// would no longer be those of the kernel.
const MOST_SETS: u64 = 4096;

/// Everything that the operations of a problem need; they share inputs and outputs.
pub struct Tensors<'c> {
    pub context: &'c Context,
    pub problem: &'c Posed,
    pub layer: Layer,
    pub saved: Saved,
    /// Those of gamma, beta, alpha and the shift, as far as there are any.
    pub gradients: [Option<Tensor>; 4],
    /// Of gamma and beta, where derivatives are taken.
    pub tangents: [Option<Tensor>; 2],
    /// One where the cache is warm.
    pub sets: Vec<Set>,
    pub copies: Vec<Prepared>,
    /// x and dy as they were, where operations write over them.
    pub originals: Option<[Tensor; 2]>,
    pub naive: Option<Naive>,
    pub separate: Option<Separate>,
}

/// Tensors of the shape.
pub struct Set {
    pub x: Tensor,
    pub residual: Option<Tensor>,
    pub gate: Option<Tensor>,
    /// Of the rows of a y of int8, if they are found.
    pub scales: Option<Tensor>,
    pub addend: Option<Tensor>,
    pub dy: Tensor,
    pub d_sum: Option<Tensor>,
    /// Of derivatives; their outputs are y and dx.
    pub x_tangent: Option<Tensor>,
    pub y: Tensor,
    /// The sum, where it is not written over x.
    pub sum: Option<Tensor>,
    pub dx: Tensor,
    /// d_residual, and dz where it is computed separately.
    pub dz: Option<Tensor>,
}

/// Whether training forward writes y over x, so that backward has y alone.
pub fn trains_in_place(spec: &Spec) -> bool {
    spec.norm == Norm::Batch && spec.in_place && spec.activation.is_invertible()
}

/// Whether a forward operation writes y over x: not where backward needs that, or the sum is there.
fn is_over_x(spec: &Spec, op: BenchOp) -> bool {
    match op {
        BenchOp::TrainForward => trains_in_place(spec),
        _ => spec.in_place && !spec.sum,
    }
}

/// Whether backward writes d_residual. Without an activation it is dy; batch norm writes it all the same.
fn writes_d_residual(spec: &Spec) -> bool {
    spec.residual && (spec.norm.is_batch() || spec.activation != Activation::None)
}

impl Set {
    /// The first set, with values; its outputs are zero.
    async fn with_data(context: &Context, problem: &Posed, layout: Layout) -> Result<Self> {
        let (spec, inputs) = (&problem.spec, &problem.problem.inputs);
        let upload_if = async |values: &Option<Vec<f32>>| match values {
            Some(values) => upload(context, problem, layout, values).await.map(Some),
            None => Ok(None),
        };
        let [x, dy] = x_and_dy(context, problem, layout).await?;
        Ok(Self {
            residual: upload_if(&inputs.residual).await?,
            gate: upload_if(&inputs.gate).await?,
            addend: upload_if(&inputs.addend).await?,
            dy,
            d_sum: upload_if(&inputs.d_sum).await?,
            x_tangent: upload_if(&inputs.tangents.as_ref().map(|tangents| tangents.x.clone())).await?,
            ..Self::zeros(context, x, spec).await?
        })
    }

    /// A set with this x; everything else is zero.
    async fn zeros(context: &Context, x: Tensor, spec: &Spec) -> Result<Self> {
        let zeros_if = async |wanted: bool| match wanted {
            true => context.zeros_like(&x).await.map(Some),
            false => Ok(None),
        };
        Ok(Self {
            residual: zeros_if(spec.residual).await?,
            gate: zeros_if(spec.gate.is_some()).await?,
            addend: zeros_if(spec.sum).await?,
            dy: context.zeros_like(&x).await?,
            d_sum: zeros_if(spec.sum).await?,
            x_tangent: zeros_if(spec.has_second()).await?,
            y: match spec.int8 {
                None => context.zeros_like(&x).await?,
                Some(_) => context.zeros_as(x.shape().dims(), DType::I8).await?.with_layout(x.layout()),
            },
            scales: match spec.int8 {
                // Of no use where one is given.
                Some(_) => {
                    let rows = x.shape().dims().iter().rev().skip(1).product();
                    Some(context.zeros(&[rows]).await?)
                }
                None => None,
            },
            sum: zeros_if(spec.sum && !spec.in_place).await?,
            dx: context.zeros_like(&x).await?,
            dz: zeros_if(writes_d_residual(spec) || spec.gate.is_some() || Separate::is_of(spec)).await?,
            x,
        })
    }

    /// What has values.
    fn inputs(&self) -> impl Iterator<Item = &Tensor> {
        let optional = [&self.residual, &self.gate, &self.addend, &self.d_sum, &self.x_tangent];
        [&self.x, &self.dy].into_iter().chain(optional.into_iter().flatten())
    }

    /// Where the sum is, if there is one. What backward takes: the sum, or x, or what forward left in its place.
    fn sum(&self) -> &Tensor {
        self.sum.as_ref().unwrap_or(&self.x)
    }

    /// Where a forward operation writes y.
    fn y(&self, spec: &Spec, op: BenchOp) -> &Tensor {
        if is_over_x(spec, op) { &self.x } else { &self.y }
    }

    /// Where a backward operation writes dx.
    fn dx(&self, spec: &Spec) -> &Tensor {
        if spec.in_place { &self.dy } else { &self.dx }
    }

    /// Where a copy of x has room.
    fn copy_of_x(&self) -> &Tensor {
        if self.y.dtype() == self.x.dtype() { &self.y } else { &self.dx }
    }

    fn d_residual(&self, spec: &Spec) -> Option<&Tensor> {
        self.dz.as_ref().filter(|_| spec.residual)
    }

    fn d_gate(&self, spec: &Spec) -> Option<&Tensor> {
        self.dz.as_ref().filter(|_| spec.gate.is_some())
    }

    /// A tensor in the place of x, with what there is around it.
    fn input<'a>(&'a self, spec: &Spec, x: &'a Tensor) -> Input<'a> {
        let input = Input::from(x).with_residual(self.residual.as_ref());
        match (&self.gate, spec.gate) {
            (Some(gate), Some(order)) => input.gated(gate, order),
            _ => input,
        }
    }
}

impl<'c> Tensors<'c> {
    /// `count` sets of tensors, and the layer.
    pub fn new(context: &'c Context, problem: &'c Posed, layout: Layout, count: u64) -> Result<Self, String> {
        let told = |error: wgnorm::Error| error.to_string();
        let parameters = context.block_on(parameters(context, problem)).map_err(told)?;
        let naive = Naive::new(context, layout, problem, &parameters)?;
        let one = Self::with_one_set(context, problem, layout, parameters);
        let mut tensors = Self { naive, ..context.block_on(one).map_err(told)? };
        tensors.rotate(count).map_err(|error| format!("{count} sets of tensors: {error}"))?;
        Ok(tensors)
    }

    async fn with_one_set(
        context: &'c Context,
        problem: &'c Posed,
        layout: Layout,
        parameters: Parameters,
    ) -> Result<Self> {
        let spec = &problem.spec;
        let set = Set::with_data(context, problem, layout).await?;
        let originals = match spec.in_place {
            true => Some(x_and_dy(context, problem, layout).await?),
            false => None,
        };
        let mut gradients = [const { None }; 4];
        let Parameters { gamma, beta, alpha, shift, .. } = &parameters;
        for (gradient, parameter) in gradients.iter_mut().zip([gamma, beta, alpha, shift]) {
            if let Some(parameter) = parameter {
                *gradient = Some(context.zeros_like(parameter).await?);
            }
        }
        let mut tangents = [None, None];
        if let Some(values) = &problem.problem.inputs.tangents {
            let own = spec.parameter_shape();
            for (tangent, values) in tangents.iter_mut().zip([&values.gamma, &values.beta]) {
                if let Some(values) = values {
                    *tangent = Some(context.upload_as(&own, values, spec.parameters).await?);
                }
            }
        }
        let separate = Separate::new(context, spec, parameters.clone(), &set.x).await?;
        let layer = Layer::new(context, spec, parameters).await?;
        let saved = match trains_in_place(spec) {
            true => layer.room_in_place(&set.x).await?,
            false => layer.room_for(&set.x).await?,
        };
        let (sets, copies) = (vec![set], Vec::new());
        let naive = None;
        Ok(Self {
            context,
            problem,
            layer,
            saved,
            gradients,
            tangents,
            sets,
            copies,
            originals,
            naive,
            separate,
        })
    }

    /// Makes sets with the contents of the first, up to `count`, and a copy operation for each.
    fn rotate(&mut self, count: u64) -> Result<(), String> {
        let context = self.context;
        let mut made = async || -> Result<()> {
            while (self.sets.len() as u64) < count {
                let x = context.zeros_like(&self.sets[0].x).await?;
                self.sets.push(Set::zeros(context, x, &self.problem.spec).await?);
            }
            for set in &self.sets {
                // Forced plans are the operation's: the yardstick stays what it is.
                let free = context.with_tuning(Tuning::default());
                self.copies.push(prepare_copy(&free, &set.x, set.copy_of_x()).await?);
            }
            Ok(())
        };
        context.block_on(made()).map_err(|error| error.to_string())?;
        let [first, others @ ..] = self.sets.as_slice() else { return Ok(()) };
        scoped(context, || {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            for other in others {
                first.inputs().zip(other.inputs()).for_each(|(from, to)| copy(&mut encoder, from, to));
            }
            context.queue().submit([encoder.finish()]);
        })
    }

    /// Prepares an operation on the first `count` sets.
    pub fn prepare(&mut self, op: BenchOp, count: usize) -> Result<Vec<TrainForward>, String> {
        let Self { context, problem, layer, saved, gradients, tangents, sets, .. } = self;
        let spec = &problem.spec;
        let [dgamma, dbeta, dalpha, dshift] = gradients.each_ref().map(Option::as_ref);
        let mut prepared = async |set: &Set| {
            if let Some(x_tangent) = set.x_tangent.as_ref().filter(|_| op.is_derivative()) {
                let [gamma, beta] = tangents.each_ref().map(Option::as_ref);
                let tangents = Tangents::of_x(x_tangent).gamma(gamma).beta(beta);
                let targets = SecondTargets::new(&set.y, &set.dx).dgamma(dgamma).dbeta(dbeta);
                return match op {
                    BenchOp::Tangent => layer.prepare_jvp(&set.x, saved, &tangents, &set.y).await,
                    _ => layer.prepare_double_backward(&set.x, &set.dy, saved, &tangents, &targets).await,
                }
                .map(Into::into);
            }
            if op.is_forward() {
                let input = set.input(spec, &set.x);
                let input = match &set.addend {
                    Some(addend) => input.plus(addend, set.sum()),
                    None => input,
                };
                if let (Some(int8), Some(scales)) = (spec.int8, &set.scales) {
                    let int8 = int8.into_scales(scales);
                    return layer.prepare_infer_int8(input, &set.y, int8).await.map(Into::into);
                }
                let saved = (op == BenchOp::TrainForward).then_some(&*saved);
                return layer.prepare_train_forward(input, set.y(spec, op), saved).await;
            }
            let targets = GradientTargets::default()
                .dx(set.dx(spec))
                .d_residual(set.d_residual(spec))
                .d_gate(set.d_gate(spec))
                .dgamma(dgamma)
                .dbeta(dbeta)
                .dalpha(dalpha)
                .dshift(dshift);
            let input = set.input(spec, set.sum()).with_d_sum(set.d_sum.as_ref());
            layer.prepare_backward(input, &set.dy, saved, &targets).await.map(Into::into)
        };
        let prepared = context.block_on(async {
            let mut operations = Vec::new();
            for set in &sets[..count] {
                operations.push(prepared(set).await?);
            }
            Ok(operations)
        });
        prepared.map_err(|error: wgnorm::Error| error.to_string())
    }

    /// Fills with NaN what holds results alone.
    pub fn poison(&self) {
        let Set { y, sum, dx, dz, .. } = &self.sets[0];
        let optional = [sum, dz].into_iter().chain(&self.gradients).flatten();
        [y, dx].into_iter().chain(optional).for_each(|tensor| poison(self.context, tensor));
    }

    /// The results of an operation on the first set, which saved its statistics here.
    pub fn results(&self, op: BenchOp, saved: Option<&Saved>) -> Result<Results> {
        let Self { context, problem, layer, gradients, sets, .. } = self;
        let (spec, set) = (&problem.spec, &sets[0]);
        let mut results = Results::new();
        let batches = match op {
            BenchOp::TrainForward | BenchOp::Inference => {
                [("y", Some(set.y(spec, op))), ("sum", spec.sum.then(|| set.sum())), ("", None)]
            }
            BenchOp::TrainBackward | BenchOp::FrozenBackward => {
                [("dx", Some(set.dx(spec))), ("dresidual", set.d_residual(spec)), ("dgate", set.d_gate(spec))]
            }
            BenchOp::Tangent => [("y_tangent", Some(&set.y)), ("", None), ("", None)],
            BenchOp::SecondBackward => {
                [("second_dy", Some(&set.y)), ("second_dx", Some(&set.dx)), ("", None)]
            }
        };
        let of_parameters: &[_] = match op {
            BenchOp::TrainBackward | BenchOp::FrozenBackward => &GRADIENTS,
            BenchOp::SecondBackward => &SECOND_GRADIENTS,
            _ => &[],
        };
        context.block_on(async {
            for (name, tensor) in batches {
                if let Some(tensor) = tensor {
                    results
                        .extend(problem.parts(context, tensor).await?.into_iter().map(|part| (name, part)));
                }
            }
            if let (BenchOp::TrainForward, Some(saved)) = (op, saved) {
                match layer.directions().await? {
                    Some((u, v)) => results.extend([("u", u), ("v", v)]),
                    None => {
                        let all = saved.download(context).await?;
                        results.push(("save_invstd", all.iter().map(|s| s.inv_std).collect()));
                    }
                }
            }
            for (&name, tensor) in of_parameters.iter().zip(gradients) {
                if let Some(tensor) = tensor {
                    results.push((name, context.download(tensor).await?));
                }
            }
            Ok(results)
        })
    }
}

/// What operations may write over.
async fn x_and_dy(context: &Context, problem: &Posed, layout: Layout) -> Result<[Tensor; 2]> {
    let inputs = &problem.problem.inputs;
    // For inference alone there is none.
    let dy = inputs.dy.as_deref().unwrap_or(&inputs.x);
    Ok([upload(context, problem, layout, &inputs.x).await?, upload(context, problem, layout, dy).await?])
}

/// A tensor of the shape, of values of which it is so many copies.
async fn upload(context: &Context, posed: &Posed, layout: Layout, values: &[f32]) -> Result<Tensor> {
    let (spec, part) = (&posed.spec, &posed.problem.spec);
    let part = layout::upload(context, layout, &part.shape, values, spec.dtype).await?;
    if posed.copies == 1 {
        return Ok(part);
    }
    let dims = layout::memory_dims(layout, &spec.shape);
    let all = context.zeros_as(&dims, spec.dtype).await?.with_layout(layout);
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let bytes = part.byte_len();
    for copy in 0..posed.copies as u64 {
        encoder.copy_buffer_to_buffer(part.buffer(), 0, all.buffer(), copy * bytes, bytes);
    }
    context.queue().submit([encoder.finish()]);
    Ok(all)
}

/// The parameters of a problem on the device.
async fn parameters(context: &Context, problem: &Posed) -> Result<Parameters> {
    let Inputs { gamma, beta, alpha, shift, running, directions, .. } = &problem.problem.inputs;
    let spec = &problem.spec;
    let upload = async |is: bool, dims: &[usize], values: &[f32]| match is {
        true => context.upload_as(dims, values, spec.parameters).await.map(Some),
        false => Ok(None),
    };
    let own = spec.parameter_shape();
    let of_shape = async |values: &Option<Vec<f32>>| {
        upload(values.is_some(), &own, values.as_deref().unwrap_or_default()).await
    };
    Ok(Parameters {
        gamma: of_shape(gamma).await?,
        beta: of_shape(beta).await?,
        alpha: upload(!alpha.is_empty(), &spec.alpha_shape().unwrap_or_default(), alpha).await?,
        shift: upload(!shift.is_empty(), &spec.shift_shape().unwrap_or_default(), shift).await?,
        running: running.clone(),
        directions: directions.clone(),
    })
}

/// How many sets of tensors of `bytes` it takes: no operation touches less than two tensors of a set, so between two
/// uses of one at least two of every other go through the cache.
pub fn sets_for(cache: Cache, bytes: u64) -> Result<u64, String> {
    let Cache::Cold { bytes: cold } = cache else { return Ok(1) };
    let sets = 1 + cold.div_ceil(2 * bytes.max(1));
    if sets > MOST_SETS {
        return Err(format!(
            "a cold cache of {cold} bytes would take {sets} sets of tensors this small, more than {MOST_SETS}; lower \
             --cold-bytes"
        ));
    }
    Ok(sets)
}

/// Copies the values of a tensor that has a buffer of its own to one like it.
pub fn copy(encoder: &mut wgpu::CommandEncoder, from: &Tensor, to: &Tensor) {
    encoder.copy_buffer_to_buffer(from.buffer(), 0, to.buffer(), 0, from.buffer().size());
}

/// Fills a tensor with NaN.
pub fn poison(context: &Context, tensor: &Tensor) {
    let (device, queue, dtype) = (context.device(), context.queue(), tensor.dtype());
    let (bytes, piece) = (tensor.byte_len().next_multiple_of(4), 1 << 20);
    let nan = dtype.encode(&vec![f32::NAN; bytes.min(piece).div_ceil(dtype.size()) as usize]);
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor {
        label: Some("NaN"),
        size: nan.len() as u64,
        usage,
        mapped_at_creation: false,
    };
    let source = device.create_buffer(&descriptor);
    queue.write_buffer(&source, 0, &nan);
    let mut encoder = device.create_command_encoder(&Default::default());
    for at in (0..bytes).step_by(piece as usize) {
        encoder.copy_buffer_to_buffer(&source, 0, tensor.buffer(), at, piece.min(bytes - at));
    }
    queue.submit([encoder.finish()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_sets_fill_the_cache() {
        assert_eq!(sets_for(Cache::Warm, 100), Ok(1));
        assert_eq!(sets_for(Cache::Cold { bytes: 1000 }, 100), Ok(6));
        assert_eq!(sets_for(Cache::Cold { bytes: 1 }, 100), Ok(2));
        assert!(sets_for(Cache::Cold { bytes: 1 << 30 }, 100).unwrap_err().contains("--cold-bytes"));
    }

    #[test]
    fn y_goes_over_x_where_backward_can_do_without_it() {
        let over = |line: &str| {
            let spec: Spec = line.parse().unwrap();
            [BenchOp::TrainForward, BenchOp::Inference].map(|op| is_over_x(&spec, op))
        };
        assert_eq!(over("batch 2x3 in_place leaky_relu=0.01"), [true, true]);
        assert_eq!(over("batch 2x3 in_place relu"), [false, true]);
        assert_eq!(over("batch 2x3 leaky_relu=0.01"), [false, false]);
        assert_eq!(over("layer 2x3 in_place"), [false, true]);
        assert_eq!(over("layer 2x3 in_place sum"), [false, false]);
    }
}
