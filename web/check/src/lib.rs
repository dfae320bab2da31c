//! wgnorm in a page, with wgpu: the cases of `wgnorm check` on the browser's GPU, and problems with what must come of them for whoever runs recipes.
//!
//! It is the example of the crate on the web as well: [`train`] and [`Check`] open a device, run layers and await what comes of them, without a thread that blocks.

mod cases;
mod problem;
mod training;

pub use cases::Check;
pub use problem::{Problem, lines};
pub use training::train;
