//! Operations as data: all that a program needs to run a pass of a layer on a device of its own, without this crate.
//!
//! [`Spec::recipes`](crate::Spec::recipes) makes the [`Recipe`]s of a problem for a device that can do what its [`Capabilities`](crate::tuning::Capabilities) say: kernels as
//! WGSL with their pipeline constants and bindings, the bytes of their parameters, what scratch they need, which buffers they are given, and dispatches in
//! order. No device is needed for it, nor wgpu: the crate without its default features plans, and does nothing else. With the feature `serde` recipes serialize, and
//! come back bit for bit.
//!
//! ```
//! use wgnorm::Spec;
//! use wgnorm::tuning::Capabilities;
//! let spec: Spec = "layer 64x256 backward".parse()?;
//! let recipes = spec.recipes(&Capabilities::webgpu())?;
//! let names: Vec<&str> = recipes.forward.operands.iter().map(|operand| operand.name.as_str()).collect();
//! assert_eq!(names, ["x", "y", "gamma", "beta", "saved statistics"]);
//! let kernel = &recipes.forward.kernels[recipes.forward.dispatches[0].kernel];
//! assert!(kernel.wgsl.contains("@compute") && kernel.wgsl.contains(&kernel.entry_point));
//! # Ok::<(), wgnorm::Error>(())
//! ```
//!
//! # How a recipe is run
//!
//! 1. Compile each [`Kernel`]: one bind group, number 0, whose bindings it lists, and its pipeline constants. Every kernel writes its workgroup memory before it reads it.
//! 2. Allocate [`Recipe::scratch`], and a uniform buffer with [`Recipe::uniforms`]. What is zeroed begins as zeros; then it needs not be zeroed again, as long as it is this recipe's
//!    alone.
//! 3. Make a bind group for each [`Dispatch`]. Where a binding sees [`Source::Nothing`], bind 256 bytes of zeros, a range of its own for each that is written.
//! 4. Dispatch in order, in one compute pass or several; WebGPU orders what they read and write.
//!
//! With wgpu [`Recipe::prepare`] does all of it.
//!
//! Kernels for a device with subgroups ([`Capabilities::subgroup_size`](crate::tuning::Capabilities::subgroup_size)) use their built-in functions; where WGSL asks for it,
//! `enable subgroups;` goes before their text. [`Capabilities::webgpu`](crate::tuning::Capabilities::webgpu) has none. What WGSL leaves open, and such plans rest on, [`probes`] find out.
//!
//! # Operands
//!
//! Tensors are dense, in the order of their axes; parameters and their gradients follow the problem's types. What else there is:
//!
//! | name | layout |
//! |---|---|
//! | running statistics | `[3, C]`: means and variances as f32, the number of batches as a u32 for each channel |
//! | saved statistics | of batch norm `[C, 10]`, of other norms `[S, 4]`, words that the backward pass takes as forward has left them ([`Saved::from_tensor`](crate::Saved::from_tensor), [`Norm::room_in`](crate::family::Norm::room_in)) |
//! | directions | u, then v of spectral norm, as f32 |
//! | mask | a bit for each sample and position after the first 32, which are 0; the least significant bit of a u32 first |

mod export;
mod probes;
#[cfg(feature = "wgpu")]
mod run;

use crate::plan::Op;

pub use probes::{Found, Probe, probes};

/// The recipes of a problem.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Recipes {
    /// y, and what a backward pass needs if there is one.
    pub forward: Recipe,
    /// All gradients, if the problem has a backward pass.
    pub backward: Option<Recipe>,
}

/// An operation on buffers, whichever they are.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Recipe {
    /// What it does.
    pub op: Op,
    /// What is compiled, each once.
    pub kernels: Vec<Kernel>,
    /// The buffers that it is given.
    pub operands: Vec<Operand>,
    /// Buffers for what one dispatch leaves for another.
    pub scratch: Vec<Scratch>,
    /// The contents of the uniform buffer that all dispatches share.
    pub uniforms: Vec<u8>,
    /// What is run, in order.
    pub dispatches: Vec<Dispatch>,
    /// Bytes of tensor data that any implementation must move.
    pub floor_bytes: u64,
    /// Bytes of tensor data that this moves.
    pub plan_bytes: u64,
    /// Why it is planned as it is, for people to read.
    pub reasons: Vec<String>,
}

/// A compute shader.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Kernel {
    /// What it is, for people to read.
    pub name: String,
    /// Its text.
    pub wgsl: String,
    /// Its entry point.
    pub entry_point: String,
    /// Values of its pipeline constants.
    pub constants: Vec<(String, f64)>,
    /// What it binds, in the order of their numbers.
    pub bindings: Vec<(u32, BindingType)>,
}

/// How a kernel sees a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum BindingType {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is read.
    Read,
    /// A storage buffer that is read and written.
    ReadWrite,
}

/// A buffer that an operation is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Operand {
    /// Which one it is: x, y, gamma, saved statistics, …
    pub name: String,
    /// Bytes that it must have.
    pub bytes: u64,
    /// Whether it is written.
    pub written: bool,
}

/// A buffer for what one dispatch leaves for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Scratch {
    /// Its size.
    pub bytes: u64,
    /// Whether it must begin as zeros.
    pub zeroed: bool,
}

/// A dispatch of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Dispatch {
    /// Which of the kernels.
    pub kernel: usize,
    /// Workgroups in x and y.
    pub workgroups: [u32; 2],
    /// What its bindings see.
    pub bindings: Vec<Binding>,
}

/// What a binding sees: a range of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Binding {
    /// Its number.
    pub number: u32,
    /// Which buffer.
    pub source: Source,
    /// First byte.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Which buffer a binding sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Source {
    /// The uniform buffer.
    Uniforms,
    /// One that the operation is given, by its place in [`Recipe::operands`].
    Operand(usize),
    /// One of [`Recipe::scratch`].
    Scratch(usize),
    /// None: what would be there is absent, and is read as zeros.
    Nothing {
        /// Whether the kernel could write through it, so that no other binding may see the same.
        written: bool,
    },
}
