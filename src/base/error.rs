//! The one error type of the crate: every variant says what was wrong, what was expected and what was got.

use std::path::PathBuf;

use crate::base::activation::Activation;
use crate::base::dtype::DType;
use crate::base::failure::CollectiveFailure;
use crate::base::gate::GateOrder;
#[cfg(feature = "safetensors")]
use crate::base::report::{LoadReport, Mismatch};
use crate::base::shape::{Layout, Shape};
#[cfg(feature = "safetensors")]
use crate::base::variance::RunningVariance;

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Nothing a caller passes panics, and nothing is recorded on an error, so
/// parameters and running statistics stay as they were.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter matched; `available` names those that exist.
    #[error("no adapter found{}: {reason}; available: [{}]", described(.wanted), .available.join(", "))]
    NoAdapter {
        /// The name that was asked for, if any (`WGPU_ADAPTER_NAME` or an option).
        wanted: Option<String>,
        /// Names of the adapters that exist for the chosen backends.
        available: Vec<String>,
        /// What wgpu said.
        reason: String,
    },
    /// The adapter or device cannot run the kernels.
    #[error("the device lacks {what}: needs {needed}, has {got}")]
    MissingCapability {
        /// The limit or feature.
        what: &'static str,
        /// What the kernels need.
        needed: u64,
        /// What the device offers.
        got: u64,
    },
    /// The driver computes wrong results: [`Context::try_driver`](crate::Context::try_driver).
    #[error("the driver computes wrong results: {seen}; choose another backend")]
    Driver {
        /// What was computed and what is right.
        seen: String,
    },
    /// The adapter refused to open a device.
    #[error("the adapter refused to open a device: {reason}")]
    RequestDevice {
        /// What wgpu said.
        reason: String,
    },
    /// A tensor has a number of axes that the operation does not take.
    #[error("{what} must have {expected} axes, got {got}")]
    Rank {
        /// The tensor.
        what: &'static str,
        /// The accepted ranks in words.
        expected: &'static str,
        /// The rank that was passed.
        got: usize,
    },
    /// A tensor has another shape than the operation needs.
    #[error("{what} must have shape {expected}, got {got}")]
    Shape {
        /// The tensor.
        what: &'static str,
        /// The needed shape.
        expected: Shape,
        /// The shape that was passed.
        got: Shape,
    },
    /// A tensor has its axes in another order than the operation needs.
    #[error("{what} must be {expected} as x is, got {got}")]
    Layout {
        /// The tensor.
        what: &'static str,
        /// The layout of x.
        expected: Layout,
        /// The layout that was passed.
        got: Layout,
    },
    /// A tensor has another element type than the operation needs.
    #[error("{what} must be {expected}, got {got}")]
    DType {
        /// The tensor.
        what: &'static str,
        /// The needed type.
        expected: DType,
        /// The type that was passed.
        got: DType,
    },
    /// Distances between samples or rows that the operation does not take.
    #[error("{what}: {why}; expected a stride of {expected} elements, got {got}")]
    Strides {
        /// The tensor.
        what: &'static str,
        /// The needed stride, or the least.
        expected: u64,
        /// The stride that was passed.
        got: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A view or a tensor of several parts where all values must follow each other in one buffer.
    #[error("{what} must be contiguous, in one buffer")]
    NotContiguous {
        /// The tensor.
        what: &'static str,
    },
    /// A range of channels or samples that a tensor does not have.
    #[error("{what} {start}..{end} are not a range of the tensor's {len}")]
    Range {
        /// What was to be sliced.
        what: &'static str,
        /// First index.
        start: u64,
        /// Past the last index.
        end: u64,
        /// How many there are.
        len: u64,
    },
    /// Nothing where at least one is needed.
    #[error("{what} needs at least one tensor")]
    Empty {
        /// What was to be made.
        what: &'static str,
    },
    /// A number of channels that does not fit the layer.
    #[error("{what} must have {}{expected} channels, got {got}", if (*expected, *got) == (1, 0) { "at least " } else { "" })]
    Channels {
        /// The tensor or value.
        what: &'static str,
        /// Channels of the layer.
        expected: u64,
        /// Channels that were passed.
        got: u64,
    },
    /// Data of another length than its shape.
    #[error("{what} of shape {shape} holds {expected} elements, got {got}")]
    Length {
        /// The tensor or value.
        what: &'static str,
        /// Its shape.
        shape: Shape,
        /// Elements of that shape.
        expected: u64,
        /// Elements that were passed.
        got: u64,
    },
    /// A batch without values, or slices without values in the other norms: there is nothing to take statistics of.
    #[error("statistics need at least one value per channel, or slice, but x has shape {shape}")]
    EmptyBatch {
        /// Shape of x.
        shape: Shape,
    },
    /// One value per channel, or slice: its variance is zero and every gradient vanishes.
    #[error(
        "expected more than 1 value per channel, or slice, in training, got shape {shape} (taken with the option allow_single_value)"
    )]
    SingleValue {
        /// Shape of x.
        shape: Shape,
    },
    /// eps is neither 0 nor a positive normal f32.
    #[error("eps must be 0, or finite and at least {} in f32, got {got}", f32::MIN_POSITIVE)]
    Epsilon {
        /// The value that was passed.
        got: f64,
    },
    /// A momentum outside of [0, 1].
    #[error("momentum must be between 0 and 1, got {got}")]
    Momentum {
        /// The value that was passed.
        got: f64,
    },
    /// A limit of batch renorm that is not one.
    #[error("the limit {what} of batch renorm must be finite in f32 and at least {least}, got {got}")]
    RenormLimit {
        /// `r_max` or `d_max`.
        what: &'static str,
        /// The least that it can be.
        least: f64,
        /// The value that was passed.
        got: f64,
    },
    /// A limit of batch renorm that ends to rise before it begins.
    #[error("the limit {what} of batch renorm cannot rise from batch {begin} to batch {end}")]
    RenormRamp {
        /// `r_max` or `d_max`.
        what: &'static str,
        /// Where it was to begin.
        begin: u32,
        /// Where it was to end.
        end: u32,
    },
    /// Batch renorm in one of forward and backward and not in the other.
    #[error("backward is of a layer {} batch renorm, but forward was of one {}", if *.expected { "without" } else { "with" }, if *.expected { "with" } else { "without" })]
    Renormalized {
        /// Whether forward's layer had it.
        expected: bool,
    },
    /// A slope of a leaky ReLU that is not finite.
    #[error("the slope of a leaky ReLU must be finite, got {got}")]
    Slope {
        /// The value that was passed.
        got: f32,
    },
    /// y cannot be written over x, or has been written over it.
    #[error("in place: {why}")]
    InPlace {
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// A scale of int8 that cannot be divided by.
    #[error("a scale must be finite and above 0, got {got}")]
    Scale {
        /// The value that was passed.
        got: f32,
    },
    /// A gate in one of forward and backward that is not in the other, or on the other side of the norm.
    #[error("backward must have the gate of forward, {expected:?}, got {got:?}")]
    Gate {
        /// Forward's.
        expected: Option<GateOrder>,
        /// Backward's.
        got: Option<GateOrder>,
    },
    /// A residual in one of forward and backward and not in the other.
    #[error("backward {} a residual, because forward {}", if *.expected { "needs" } else { "must not have" }, if *.expected { "had one" } else { "had none" })]
    Residual {
        /// Whether forward had one.
        expected: bool,
    },
    /// A view that lies between two views of one buffer that are both written.
    #[error(
        "{input} lies between {first} and {second} in one buffer, which are both written; give one of them another"
    )]
    Between {
        /// The tensor that is read.
        input: &'static str,
        /// One that is written.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Backward with another activation than forward.
    #[error("backward is of a layer with the activation {got}, but forward was of one with {expected}")]
    Activation {
        /// That of forward.
        expected: Activation,
        /// That of backward.
        got: Activation,
    },
    /// Two tensors of one operation share bytes, and at least one of them is written.
    #[error(
        "{first} and {second} overlap: bytes {}..{} and {}..{} of one buffer", .first_range.0, .first_range.1, .second_range.0, .second_range.1
    )]
    Overlap {
        /// One tensor.
        first: &'static str,
        /// The other tensor.
        second: &'static str,
        /// First and past-the-last byte of `first`.
        first_range: (u64, u64),
        /// First and past-the-last byte of `second`.
        second_range: (u64, u64),
    },
    /// Two tensors of a buffer that also holds an output are too close to be bound apart on this device, or are inputs
    /// that alias.
    #[error(
        "{first} and {second} share a block of {alignment} bytes, the device's granularity of bindings, of a buffer that also holds an output; place them in different blocks"
    )]
    SharedBlock {
        /// One tensor.
        first: &'static str,
        /// The other tensor.
        second: &'static str,
        /// `min_storage_buffer_offset_alignment` of the device.
        alignment: u64,
    },
    /// An offset that is not a multiple of what it must be.
    #[error("{what}: byte offset {offset} is not a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        what: &'static str,
        /// The offset that was passed.
        offset: u64,
        /// What it must be a multiple of: the size of one element, or the alignment of a binding; in bytes.
        alignment: u64,
    },
    /// A buffer that ends before its tensor.
    #[error("{what}: the tensor needs {needed} bytes from offset {offset}, the buffer has {size}")]
    BufferTooSmall {
        /// The tensor.
        what: &'static str,
        /// First byte of the tensor.
        offset: u64,
        /// Bytes of the tensor.
        needed: u64,
        /// Bytes of the buffer.
        size: u64,
    },
    /// A buffer without a usage flag that the operation needs.
    #[error("{what}: the buffer lacks the usage {missing}")]
    BufferUsage {
        /// The tensor.
        what: &'static str,
        /// The missing flag.
        missing: &'static str,
    },
    /// A tensor or value that was made with another context.
    #[error("{what} belongs to another context, and so perhaps to another device")]
    ForeignDevice {
        /// The tensor or value.
        what: &'static str,
    },
    /// More than the device can bind, allocate or address.
    #[error("{what} needs {needed} {unit}, {limit_name} is {limit}")]
    TooLarge {
        /// The tensor or value.
        what: &'static str,
        /// What it needs.
        needed: u64,
        /// Unit of `needed` and `limit`.
        unit: &'static str,
        /// Name of the limit.
        limit_name: &'static str,
        /// Its value.
        limit: u64,
    },
    /// A problem that no layer has, or a line that is none.
    #[error("not a problem: {reason}")]
    Spec {
        /// What is wrong with it.
        reason: String,
    },
    /// A backward pass without a gradient to write.
    #[error("no gradient was asked for: give at least one of dx, d_residual, and those of parameters")]
    NoGradient,
    /// A gradient of something that the layer or the operation does not have.
    #[error("{gradient} was asked for, but there is no {parameter}")]
    NoParameter {
        /// The gradient.
        gradient: &'static str,
        /// The parameter.
        parameter: &'static str,
    },
    /// A backward pass by the sums of x alone through statistics that cover more.
    #[error(
        "forward normalized with statistics that may cover more than x (Saved::pooled): merge the gradient sums of all that they cover and use backward_from"
    )]
    Pooled,
    /// Axes over which no statistics can be taken.
    #[error("statistics over the axes {axes:?} of {shape}: {why}")]
    Axes {
        /// The axes that were asked for.
        axes: Vec<usize>,
        /// The shape of x.
        shape: Shape,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// A choice of a plan that is forced to what it cannot be ([`Tuning`](crate::tuning::Tuning)).
    #[error("a tuning cannot have {choice} {got}: it must be {expected}")]
    Tuning {
        /// The choice.
        choice: &'static str,
        /// What it can be.
        expected: String,
        /// What it was forced to.
        got: u64,
    },
    /// A shader module that cannot be read or linked ([`wgsl::Program`](crate::wgsl::Program)).
    #[error("{module}, line {line}: {what}")]
    Shader {
        /// The module.
        module: String,
        /// Where in it.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// A tensor of a program that is not bound as it must be ([`wgsl::Pass`](crate::wgsl::Pass)).
    #[error("{name}: {why}; expected each of [{}] once", .expected.join(", "))]
    Binding {
        /// The name.
        name: String,
        /// What is wrong.
        why: &'static str,
        /// What the program binds.
        expected: Vec<&'static str>,
    },
    /// Something that goes with other layers than this one.
    #[error("{layer} takes no {what}: {why}")]
    Unsupported {
        /// The layer.
        layer: &'static str,
        /// What it was given.
        what: &'static str,
        /// What to do instead.
        why: &'static str,
    },
    /// Groups that the channels cannot be divided into.
    #[error("{channels} channels cannot be divided into {groups} groups of the same size")]
    Groups {
        /// Channels.
        channels: u64,
        /// Groups that were asked for.
        groups: u64,
    },
    /// Another number of something than goes with the rest.
    #[error("{what}: expected {expected}, got {got}")]
    Number {
        /// What is counted.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A mask for a batch of another geometry.
    #[error("the mask is for {} samples of {} positions, x has {} of {}", .got.0, .got.1, .expected.0, .expected.1)]
    Mask {
        /// Samples, and positions of each, of x.
        expected: (u64, u64),
        /// Those of the mask.
        got: (u64, u64),
    },
    /// A mask in one of forward and backward and not in the other.
    #[error("backward {} a mask, because forward {}", if *.expected { "needs" } else { "must not have" }, if *.expected { "had one" } else { "had none" })]
    Masked {
        /// Whether forward had one.
        expected: bool,
    },
    /// What are no segments.
    #[error("{what} {place} of the segments: expected {expected}, got {}", .got.map_or("none".to_owned(), |got| got.to_string()))]
    Segments {
        /// Offset or index.
        what: &'static str,
        /// Its place in the list.
        place: usize,
        /// What it must be.
        expected: String,
        /// What it is, if there is one.
        got: Option<u64>,
    },
    /// Statistics of a data set of which nothing has been seen.
    #[error("channel {channel} has no values yet, of which statistics could be")]
    NothingPooled {
        /// The first channel without values.
        channel: usize,
    },
    /// Bytes that are not a recalibration.
    #[error("these bytes are not a recalibration: {reason}")]
    RecalibrationState {
        /// What is wrong.
        reason: String,
    },
    /// Parts of no samples.
    #[error("a ghost batch needs at least one sample; x has {samples}")]
    GhostSize {
        /// Samples of x.
        samples: usize,
    },
    /// A gradient that another operation computes.
    #[error("{gradient} is not a result of this operation, but of {instead}")]
    NotHere {
        /// The gradient.
        gradient: &'static str,
        /// The operation whose result it is.
        instead: &'static str,
    },
    /// A recording of a training forward pass with the wrong layer.
    #[error("this training forward pass was prepared for another layer")]
    WrongLayer,
    /// Statistics of another number of values than the tensor holds per channel.
    #[error("{what} covers {} values per channel, but x holds {got}; {hint}", known(.expected))]
    Count {
        /// The statistics.
        what: &'static str,
        /// Values per channel in the statistics, if known on the host.
        expected: Option<u64>,
        /// Values per channel in x.
        got: u64,
        /// What to do about it.
        hint: &'static str,
    },
    /// A value that is not what it must be.
    #[error("{what}[{index}] must be {expected}, got {got}")]
    Value {
        /// The values.
        what: &'static str,
        /// Which of them.
        index: u64,
        /// What they must be.
        expected: &'static str,
        /// The value that was passed, or what it leads to.
        got: f64,
    },
    /// A threshold of a diagnosis from which nothing could follow.
    #[error("the threshold {what} must be {expected}, got {got}")]
    Threshold {
        /// The field of the options.
        what: &'static str,
        /// What it must be.
        expected: &'static str,
        /// The value that was passed.
        got: f64,
    },
    /// A result that its element type cannot hold.
    #[error("{what}[{index}] would be {got:e}, but the largest {dtype} is {:e}", .dtype.max())]
    Unrepresentable {
        /// The results.
        what: &'static str,
        /// Which of them.
        index: u64,
        /// The result.
        got: f64,
        /// The element type.
        dtype: DType,
    },
    /// Weights of a convolution or linear layer that do not have the axes they are said to have.
    #[error("weights of shape {dims:?} as {axes} in {groups} groups: {why}")]
    WeightShape {
        /// The layout.
        axes: &'static str,
        /// Axis lengths that were passed.
        dims: Vec<usize>,
        /// Groups that were passed.
        groups: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A norm that cannot be folded into what follows it without changing results.
    #[error("folding the norm into what follows it would not be exact: {why}")]
    InexactFolding {
        /// Why not.
        why: &'static str,
    },
    /// A recipe that refers to what it does not have.
    #[error("the recipe cannot be run: {reason}")]
    Recipe {
        /// What it lacks.
        reason: String,
    },

    /// Something was to run, or to be read, where there is no device: operations are only planned.
    #[error("there is no device: operations are planned here, and run elsewhere")]
    NoDevice,

    /// A buffer, shader, pipeline or bind group that wgpu refused.
    #[error("wgpu refused {what}: {message}")]
    Validation {
        /// What was being created.
        what: String,
        /// What wgpu said.
        message: String,
    },
    /// A file that could not be read or written.
    #[error("cannot {action} {}: {reason}", .path.display())]
    File {
        /// `read`, `write` or `create`.
        action: &'static str,
        /// The file, or the directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A text that should hold pinned plans and is something else.
    #[error("not a text of pinned plans: the first line should be {expected:?}, got {got:?}")]
    Tunings {
        /// The first line of such a text.
        expected: &'static str,
        /// That of the one that was passed, shortened.
        got: String,
    },
    /// The ranks of a collective cannot come together.
    #[error("cannot set up a collective: {failure}")]
    CollectiveSetup {
        /// What is wrong.
        failure: CollectiveFailure,
    },
    /// Ranks could not exchange their messages, and the collective is unusable from then on.
    #[error("rank {rank}: the collective {}: {failure}", if *.earlier { "is unusable, because it failed before" } else { "failed" })]
    Collective {
        /// The rank that returns this error.
        rank: usize,
        /// The first failure of the collective.
        failure: CollectiveFailure,
        /// Whether it had failed before this call.
        earlier: bool,
    },
    /// Bytes that are not a whole safetensors file.
    #[cfg(feature = "safetensors")]
    #[error("not a safetensors file: {reason}")]
    StateFile {
        /// What is wrong.
        reason: String,
    },
    /// A tensor of a state that does not fit what is to be saved there.
    #[cfg(feature = "safetensors")]
    #[error("the tensor {0}")]
    StateTensor(Mismatch),
    /// A state that does not hold what layers need: everything that is missing, unexpected or mismatched.
    #[cfg(feature = "safetensors")]
    #[error("cannot load the layers: {0}")]
    LoadState(Box<LoadReport>),
    /// Two tensors of one name.
    #[cfg(feature = "safetensors")]
    #[error("the name {name:?} is that of more than one tensor, or layer")]
    DuplicateName {
        /// The name of the tensor.
        name: String,
    },
    /// Names of a layer's tensors that cannot be told apart.
    #[cfg(feature = "safetensors")]
    #[error("these names of tensors cannot be used: {reason}")]
    Naming {
        /// What is wrong.
        reason: String,
    },
    /// A running variance of one convention where the other is meant.
    #[cfg(feature = "safetensors")]
    #[error(
        "{layer}: the running variance is {}, and {} is needed; convert it with the number of values per channel of a batch, or say to keep the numbers", variance(.from), variance(.to)
    )]
    VarianceConvention {
        /// The layer.
        layer: String,
        /// What it is.
        from: RunningVariance,
        /// What is needed.
        to: RunningVariance,
    },
    /// A conversion between biased and unbiased variance without the count that it needs.
    #[cfg(feature = "safetensors")]
    #[error(
        "biased and unbiased variance differ by n/(n − 1): needs the number of values per channel that each update saw, at least 2, got {}", .got.map_or("none".to_owned(), |got| got.to_string())
    )]
    VarianceCount {
        /// The count that was passed, if any.
        got: Option<u64>,
    },
    /// A number that another convention cannot express.
    #[cfg(feature = "safetensors")]
    #[error("cannot convert {what}: {why}")]
    Conversion {
        /// What was to be converted.
        what: &'static str,
        /// Why it cannot.
        why: &'static str,
    },
    /// The device is out of memory.
    #[error("out of memory for {what}")]
    OutOfMemory {
        /// What was being created.
        what: String,
    },
    /// The device was lost or destroyed.
    #[error("the device was lost: {message}")]
    DeviceLost {
        /// What wgpu said.
        message: String,
    },
}

fn known(count: &Option<u64>) -> String {
    count.map_or("an unknown number of".to_owned(), |count| count.to_string())
}

#[cfg(feature = "safetensors")]
fn variance(variance: &RunningVariance) -> &'static str {
    match variance {
        RunningVariance::Unbiased => "unbiased",
        RunningVariance::Biased => "biased",
    }
}

fn described(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" with a name containing {name:?}")).unwrap_or_default()
}
