//! The module of a norm in burn on one shape: what is run, checked and timed.

use burn::tensor::{DType, Device, Tensor, TensorData};
use wgnorm::Context;
use wgnorm::tuning::prepare_copy;

use crate::Refusal;
use crate::cases::Group;
use crate::check::{self, Values};
use crate::norm::{Layers, Module, Norm};
use crate::stopwatch::{Spread, Stopwatch};

/// What all cases share.
pub struct Bench {
    pub device: Device,
    /// The same device and queue, to time copies on.
    pub copies: Context,
    pub samples: u32,
    pub layers: Layers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The module on an autodiff device. Batch norm's updates the running statistics too.
    TrainForward,
    /// That, and `backward`, with gradients of x and all parameters.
    TrainStep,
    /// The module on a device without autodiff.
    Inference,
}

/// What was found out about a case.
pub struct Measured {
    /// Largest error of an output as a fraction of its largest value, over what is tolerated.
    pub ratio: f64,
    pub device_ns: Option<Spread>,
    pub wall_ns: Spread,
    /// Bytes per nanosecond of a copy of x, read and written.
    pub copy_gbps: f64,
}

/// The module and its input.
struct Layer<const D: usize> {
    module: Module,
    x: Tensor<D>,
    device: Device,
}

impl Op {
    pub const fn name(self) -> &'static str {
        match self {
            Self::TrainForward => "train_forward",
            Self::TrainStep => "train_step",
            Self::Inference => "inference",
        }
    }

    /// Tensors of the shape of x that it must move at least: x and y; backward x, dy and dx.
    pub const fn floor(self) -> u64 {
        match self {
            Self::TrainForward | Self::Inference => 2,
            Self::TrainStep => 5,
        }
    }
}

/// burn's element type of a name.
fn dtype(name: &str) -> Option<DType> {
    match name {
        "float32" => Some(DType::F32),
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        _ => None,
    }
}

impl Bench {
    pub fn measure(&self, group: &Group, op: Op) -> Result<Measured, Refusal> {
        let dtype = dtype(&group.dtype).ok_or_else(|| format!("no element type {:?} here", group.dtype))?;
        if !self.device.supports_dtype(dtype) {
            return Err(format!("burn does not compute in {} on this adapter", group.dtype).into());
        }
        match group.shape.len() {
            2 => self.measure_rank::<2>(group.norm, &group.shape, dtype, op),
            3 => self.measure_rank::<3>(group.norm, &group.shape, dtype, op),
            4 => self.measure_rank::<4>(group.norm, &group.shape, dtype, op),
            5 => self.measure_rank::<5>(group.norm, &group.shape, dtype, op),
            rank => Err(format!("no tensors of {rank} axes here").into()),
        }
    }

    fn measure_rank<const D: usize>(
        &self,
        norm: Norm,
        shape: &[usize],
        dtype: DType,
        op: Op,
    ) -> Result<Measured, Refusal> {
        let values = Values::new(norm, shape, &self.device, dtype)?;
        let layer: Layer<D> = Layer::new(&self.device, self.layers, &values, dtype, op);
        let error = check::worst_error(&layer.outputs(&values, dtype, op)?, &values.expected(op)?)?;
        let ratio = error / check::tolerance(dtype);
        drop(values);

        let context = &self.copies;
        let bytes = dtype.size() * shape.iter().product::<usize>();
        let copy = context.block_on(async {
            let words = bytes.div_ceil(4);
            let x = context.zeros(&[1, words]).await?;
            let y = context.zeros_like(&x).await?;
            prepare_copy(context, &x, &y).await
        })?;
        let sees = self.layers == Layers::Burn;
        let stopwatch = Stopwatch { device: &self.device, context, sees, samples: self.samples };
        let (device_ns, wall_ns, copy_ns) = stopwatch.time(|| layer.run(op), &copy)?;
        Ok(Measured { ratio, device_ns, wall_ns, copy_gbps: 2.0 * bytes as f64 / copy_ns.median })
    }
}

impl<const D: usize> Layer<D> {
    fn new(plain: &Device, layers: Layers, values: &Values, dtype: DType, op: Op) -> Self {
        let device = match op {
            Op::Inference => plain.clone(),
            Op::TrainForward | Op::TrainStep => plain.clone().autodiff(),
        };
        // The module has one element type for all: burn does not mix float32 parameters with 16-bit tensors.
        let module =
            Module::new(values, &device, |values| tensor::<1>(values, &[values.len()], &device, dtype));
        let module = if layers == Layers::Wgnorm { module.ours() } else { module };
        let x = tensor(&values.x, &values.shape, &device, dtype);
        let x = if op == Op::TrainStep { x.require_grad() } else { x };
        Self { module, x, device }
    }

    /// Does the operation once, and hands all of it to the device.
    fn run(&self, op: Op) -> Result<(), String> {
        let y = self.module.forward(self.x.clone());
        // The results live until their kernels are recorded; fusion would leave out what nobody could read.
        let gradients = (op == Op::TrainStep).then(|| y.backward());
        self.device.flush().map_err(|error| error.to_string())?;
        drop((y, gradients));
        Ok(())
    }

    /// The outputs, for the check: y; for a step also dx and the gradients of the parameters, for the dy of `values`.
    fn outputs(&self, values: &Values, dtype: DType, op: Op) -> Result<Vec<Vec<f32>>, Refusal> {
        let y = self.module.forward(self.x.clone());
        if op != Op::TrainStep {
            return Ok(vec![read(y.without_autodiff())?]);
        }
        // `backward` starts from ones. The gradient of Σ y·dy with respect to y is dy.
        let dy = tensor::<D>(&values.dy, &values.shape, &self.device, dtype);
        let gradients = (y.clone() * dy).sum().backward();
        let none = "backward left no gradient";
        let mut outputs = vec![read(y.without_autodiff())?, read(self.x.grad(&gradients).ok_or(none)?)?];
        for parameter in self.module.parameters() {
            outputs.push(read(parameter.grad(&gradients).ok_or(none)?)?);
        }
        Ok(outputs)
    }
}

fn tensor<const D: usize>(values: &[f32], shape: &[usize], device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape.to_vec()), (device, dtype))
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Refusal> {
    let data = tensor.try_into_data_dtype(DType::F32).map_err(|error| format!("{error:?}"))?;
    Ok(data.try_to_vec().map_err(|error| format!("{error:?}"))?)
}
