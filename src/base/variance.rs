//! A convention that frameworks do not share.

/// Which variance of a batch enters the running variance; normalization itself uses the biased one, but for that of instances in [switchable norm](crate::switchable::SwitchableNormOptions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunningVariance {
    /// `n / max(n − 1, 1)` times the biased variance: PyTorch, cuDNN, TensorFlow's fused op.
    Unbiased,
    /// The biased (population) variance: Keras 3, Flax, burn, ONNX.
    Biased,
}
