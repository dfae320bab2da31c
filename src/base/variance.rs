//! A convention that frameworks do not share.

/// Which variance of a batch enters the running variance. Normalization itself always uses the biased one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunningVariance {
    /// `n / max(n − 1, 1)` times the biased variance: PyTorch, cuDNN, TensorFlow's fused op.
    Unbiased,
    /// The biased (population) variance: Keras 3, Flax, burn, ONNX.
    Biased,
}
