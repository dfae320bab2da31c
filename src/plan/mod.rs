//! Validate, plan, record: the middle step. Pure functions of a problem and the device's capabilities, so every
//! decision can be tested and printed without a GPU.

mod candidates;
mod capabilities;
mod forced;
mod geometry;
mod hardware;
mod per_slice;
#[expect(clippy::module_inception, reason = "the plan of a plan module")]
mod plan;
mod policy;
mod problem;
mod ragged;
mod resident;
mod slices;
mod splits;
mod tiles;
mod tuned;
mod windows;

pub(crate) use candidates::candidates;
pub use capabilities::Capabilities;
#[cfg(test)]
pub(crate) use capabilities::table;
pub(crate) use forced::{force, parse_tuning, tuning_text, tuning_words};
pub use hardware::Hardware;
pub(crate) use per_slice::plan_per_slice;
pub(crate) use plan::{
    CURVE_SUMS_BYTES, GRADIENT_SUMS_BYTES, MEANS_BYTES, MOMENTS_BYTES, PACKED_BYTES, RUNNING_BYTES,
    SAVED_BYTES, SECOND_PARTS, SLICE_BYTES, SQUARES_BYTES, TANGENT_BYTES,
};
pub use plan::{Plan, Tuning, WalkKind, Window};
pub(crate) use policy::{LOOP_LIMIT, plan_walk};
pub(crate) use problem::{Alignment, Part, Pattern, Walk};
pub use problem::{Op, Traffic};
pub(crate) use ragged::{NODE_PIECES, PIECE_ROWS, plan_ragged};
pub use slices::Slices;
pub(crate) use slices::{AffineOf, Parameters, Records};
pub(crate) use tiles::gcd;
pub(crate) use tuned::{maps_along_columns, row_teams};
pub(crate) use windows::addressed;
