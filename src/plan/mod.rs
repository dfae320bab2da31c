//! Validate, plan, record: the middle step. Pure functions of a problem and the device's capabilities, so every
//! decision can be tested and printed without a GPU.

mod capabilities;
mod policy;
mod problem;

pub use capabilities::Capabilities;
pub use policy::{Plan, Tuning};
pub(crate) use policy::{plan_per_slice, plan_walk};
pub(crate) use problem::Walk;
pub use problem::{Op, Traffic};
