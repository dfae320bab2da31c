//! Why something cannot be done.

use std::fmt;

use burn::tensor::Device;
use burn::tensor::wgpu::WgpuInitError;

/// Why the kernels cannot run on a device, or a layer cannot be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// burn could not open a device.
    Burn(WgpuInitError),
    /// wgnorm cannot do it.
    Wgnorm(wgnorm::Error),
    /// A device is none of burn's wgpu backend.
    Backend,
    /// What was registered is not the wgpu device of burn's, or burn does not run on it.
    OtherDevice {
        /// What came of a norm of two numbers.
        got: String,
    },
    /// Neither [`init`](crate::init) nor [`register`](crate::register) has shared a device.
    NotShared(Device),
    /// A layer has an activation, of this name, where it must not.
    Activation(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Burn(error) => write!(f, "burn: {error:?}"),
            Self::Wgnorm(error) => write!(f, "{error}"),
            Self::Backend => f.write_str("expected a device of burn's wgpu backend"),
            Self::OtherDevice { got } => {
                write!(
                    f,
                    "expected the wgpu device and queue of burn's device, with what burn needs of them; a norm there gave {got}"
                )
            }
            Self::NotShared(device) => write!(f, "{device:?} is not shared (wgnorm_burn::init)"),
            Self::Activation(name) => {
                write!(
                    f,
                    "expected a norm without an activation, got {name}: take it out, and apply it afterwards"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<wgnorm::Error> for Error {
    fn from(error: wgnorm::Error) -> Self {
        Self::Wgnorm(error)
    }
}
