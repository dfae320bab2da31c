//! Kernels of your own on the walks, reductions and element types of this crate.
//!
//! A [`Program`] is a module in WGSL (with [WESL](https://wesl-lang.dev)'s imports) that says what a slice is reduced to and what becomes of its
//! elements; the crate does the rest, as it does for its own norms: how the slices of any shape lie in memory, words of four values and what is at
//! their edges, f32, binary16 and bfloat16, how many workgroups there are and what they leave for each other, in two dispatches, or three where slices
//! are columns of matrices. Results are the same bits every time. Softmax, over rows and over channels:
//!
//! ```
//! use wgnorm::{Context, wgsl::Program};
//! # let wesl = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/softmax.wesl"));
//! let context = Context::headless_blocking()?;
//! let softmax = Program::new("softmax", wesl)?; // the text below
//! context.block_on(async {
//!     let x = context.upload(&[2, 3, 2], &[0.5, 1.0, 0.5, 9.0, 0.5, 1.0, 3e38, 0.0, 0.0, 0.0, 0.0, 0.0]).await?;
//!     let y = context.zeros_like(&x).await?;
//!     for (axis, first) in [(1, 1.0 / 3.0), (2, 1.0 / (1.0 + 0.5_f32.exp()))] {
//!         let pass = softmax.over(&[axis]).bind("x", &x).bind("y", &y).prepare(&context).await?;
//!         context.submit(&[&pass]).await?;
//!         let y = context.download(&y).await?;
//!         assert!((y[0] - first).abs() < 1e-6 && y[6] == 1.0);
//!     }
//!     Ok::<(), wgnorm::Error>(())
//! })?;
//! # Ok::<(), wgnorm::Error>(())
//! ```
//!
//! with
//!
//! ```wgsl
#![doc = include_str!("../examples/softmax.wesl")]
//! ```
//!
//! # What a program declares
//!
//! | | |
//! |---|---|
//! | `struct Partial` | what a slice is reduced to, as it is computed with: members of type [`Stat`](#stat), or as many numbers |
//! | `alias Record`, `const RECORD_BYTES` | the same as it is stored for the next dispatch, and its size in bytes: a multiple of 4, at most 24 |
//! | `fn identity() -> Partial` | that of nothing |
//! | `fn merge(a: Partial, b: Partial) -> Partial` | that of two disjoint parts; associative but for rounding |
//! | `fn taken(at: Cursor, mine: Partial) -> Partial` | `mine`, and the word at the cursor |
//! | `fn record_of_component(p: Partial, k: u32) -> Record` | component `k` of a partial result as a record |
//! | `fn with_record(p: Partial, k: u32, record: Record) -> Partial` | `p` with a record as its component `k` |
//! | `fn finished(total: Partial) -> Partial` | what is computed once per slice before its elements are |
//! | `fn mapped(at: Cursor, total: Partial) -> Word` | y of the word at the cursor |
//!
//! Its `override`s are pipeline constants, which [`Program::constant`] gives values. A name that a module imports or declares may not be given to a
//! parameter or variable in it.
//!
//! # What it imports
//!
//! From `wgnorm::…`:
//!
//! | module | names |
//! |---|---|
//! | `word` | `Word` (`f32` or `vec4<f32>`), `WordU`, `WordB` like it; `WORD_WIDTH`; `word_at`, `word_sum`, `word_max` |
//! | <a id="stat"></a>`lib::stat` | `Stat`: `f32` where an invocation walks one slice, `vec2<f32>` or `vec4<f32>` where two or four beside each other; `component(stat, k)`, `with_component(stat, k, value)` |
//! | `per` | `spread(at, stat) -> Word`, a statistic for the values of a word; `gathered(word) -> Stat`, their sum; `greatest(at, word, otherwise) -> Stat` |
//! | `walk` | `Cursor`, where an invocation is |
//! | `walk::edges` | `within(at, word)`: 0 in place of what is not of the slice; `counts(at) -> WordB`, which components are |
//! | `tensors::x`, `tensors::dy`, `tensors::residual` | `at(cursor) -> Word`: the tensor of that name |
//! | `lib::moments`, `lib::accumulate` | Chan's merge of count, mean and variance, as batch norm uses it |
//! | `activation::relu` and the other files of `shaders/activation` | `activate(z)`, `gradient(z)` |
//!
//! What these are in a kernel (a word of one value or four, an f16 that is widened) is chosen for the tensors at hand. All of `shaders/` can be
//! imported; what is not in this table may change with any version.

pub use crate::program::{Pass, Program};
