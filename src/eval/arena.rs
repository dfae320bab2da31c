//! Placing the tensors of a problem in buffers, with guard values around them that must stay as they are.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::layout;
use crate::base::dtype::DType;
use crate::base::error::Result;
use crate::base::shape::Layout;
use crate::engine::context::Context;
use crate::engine::tensor::Tensor;
use crate::spec::Place;

/// A NaN in every type, with a pattern that no arithmetic makes.
const GUARD: [u8; 2] = 0x7FDA_u16.to_le_bytes();
/// Bytes between tensors of one buffer: the coarsest granularity of bindings.
const GAP: usize = 256;

/// The ways in which batches lie in turn.
const MIXED: [Place; 6] =
    [Place::Gaps(4), Place::Parts, Place::Phase(0), Place::View(1, 2), Place::Phase(2), Place::Gaps(3)];

/// What an operation does with a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Read,
    Written,
}

/// A buffer and what it must hold.
struct Held {
    buffer: wgpu::Buffer,
    initial: Vec<u8>,
    /// Bytes that operations may write.
    written: Vec<Range<usize>>,
}

/// Gone with its run: a browser lets go of what is dropped when it collects garbage.
impl Drop for Held {
    fn drop(&mut self) {
        self.buffer.destroy();
    }
}

/// Rows of consecutive elements in a buffer; distances in elements.
struct Rows {
    start: usize,
    len: usize,
    count: usize,
    stride: usize,
}

impl Rows {
    fn one(start: usize, len: usize) -> Self {
        Self { start, len, count: 1, stride: 0 }
    }
}

/// Places the tensors of a problem.
pub struct Arena<'c> {
    pub context: &'c Context,
    pub place: Place,
    held: RefCell<Vec<Held>>,
    /// First free byte of the buffer that all share.
    next: Cell<usize>,
    placed: Cell<usize>,
}

impl<'c> Arena<'c> {
    /// `bytes` of tensors, at most, of which there are up to `tensors`.
    pub async fn new(context: &'c Context, place: Place, bytes: usize, tensors: usize) -> Result<Self> {
        let arena = Self { context, place, held: RefCell::default(), next: 0.into(), placed: 0.into() };
        if place == Place::Shared {
            let size = bytes + tensors * 2 * GAP;
            let buffer = context.zeros(&[size.div_ceil(4)]).await?.buffer().clone();
            let initial = GUARD.repeat(buffer.size() as usize / 2);
            context.queue().write_buffer(&buffer, 0, &initial);
            arena.held.borrow_mut().push(Held { buffer, initial, written: Vec::new() });
        }
        Ok(arena)
    }

    /// A parameter, in row-major order.
    pub async fn parameter(
        &self,
        dims: &[usize],
        values: &[f32],
        dtype: DType,
        role: Role,
    ) -> Result<Tensor> {
        let place = match self.place {
            Place::Parts | Place::View(..) | Place::Gaps(_) | Place::Mixed => Place::Apart,
            place => place,
        };
        self.put(place, dims, Layout::ChannelsFirst, values, dtype, role).await
    }

    /// Records that operations write.
    pub async fn records(&self, shape: &[usize]) -> Result<Tensor> {
        let nothing = vec![f32::NAN; shape.iter().product()];
        self.put(self.place, shape, Layout::ChannelsFirst, &nothing, DType::F32, Role::Written).await
    }

    /// A batch with values in memory order; `dims` are logical.
    pub async fn batch(
        &self,
        dims: &[usize],
        layout: Layout,
        values: &[f32],
        dtype: DType,
        role: Role,
    ) -> Result<Tensor> {
        let memory = layout::memory_dims(layout, dims);
        let place = match self.place {
            Place::Mixed => {
                self.placed.set(self.placed.get() + 1);
                MIXED[self.placed.get() % MIXED.len()]
            }
            place => place,
        };
        match place {
            Place::Parts if dims[0] > 1 => {
                // Where batches lie in turns, each is cut elsewhere.
                let turn = if self.place == Place::Mixed { self.placed.get() } else { 0 };
                let cut = if turn > 0 { 1 + turn % (dims[0] - 1) } else { dims[0] / 2 };
                let (first, second) = values.split_at(values.len() / dims[0] * cut);
                let part = async |samples: usize, values: &[f32], phase: usize| {
                    let dims = [&[samples], &memory[1..]].concat();
                    self.put(Place::Phase(phase), &dims, layout, values, dtype, role).await
                };
                let first = part(cut, first, turn % 4).await?;
                Tensor::concat(&[&first, &part(dims[0] - cut, second, 0).await?])
            }
            place => self.put(place, &memory, layout, values, dtype, role).await,
        }
    }

    async fn put(
        &self,
        place: Place,
        memory: &[usize],
        layout: Layout,
        values: &[f32],
        dtype: DType,
        role: Role,
    ) -> Result<Tensor> {
        let size = dtype.size() as usize;
        let at = |start: usize| Rows::one(start, values.len());
        let tensor = match place {
            Place::Apart | Place::Parts => self.context.upload_as(memory, values, dtype).await?,
            Place::Shared => {
                let start = self.next.get();
                self.next.set((start + values.len() * size).next_multiple_of(GAP) + GAP);
                let buffer = self.hold(None, &at(start / size), values, dtype, role).await?;
                Tensor::from_buffer_as(self.context, buffer, start as u64, memory, dtype)?
            }
            Place::View(before, behind) => {
                let axis = if layout == Layout::ChannelsFirst { 1 } else { memory.len() - 1 };
                let channels = memory[axis];
                let mut whole = memory.to_vec();
                whole[axis] += before + behind;
                // Samples of channels first; positions of channels last.
                let (count, inner): (usize, usize) =
                    (memory[..axis].iter().product(), memory[axis + 1..].iter().product());
                let rows =
                    Rows { start: before * inner, len: channels * inner, count, stride: whole[axis] * inner };
                let elements = whole.iter().product();
                let buffer = self.hold(Some(elements), &rows, values, dtype, role).await?;
                Tensor::from_buffer_as(self.context, buffer, 0, &whole, dtype)?
                    .with_layout(layout)
                    .slice_channels(before..before + channels)?
            }
            Place::Gaps(gap) => {
                let (count, len) = (memory[0], values.len() / memory[0].max(1));
                let rows = Rows { start: 0, len, count, stride: len + gap };
                let buffer = self.hold(Some(count * (len + gap)), &rows, values, dtype, role).await?;
                let stride = (len + gap) as u64;
                Tensor::from_strided_buffer(self.context, buffer, 0, memory, dtype, stride)?
            }
            Place::Mixed => unreachable!("a batch lies in one of the other ways"),
            Place::Phase(_) | Place::Shifted => {
                // 1, 2, 3, 1, … elements: no two tensors of an operation in the same phase.
                let start = match place {
                    Place::Phase(phase) => phase,
                    _ => self.placed.get() % 3 + 1,
                };
                self.placed.set(self.placed.get() + 1);
                // One whole word more for guards.
                let elements = (start + values.len()).next_multiple_of(4) + 4;
                let buffer = self.hold(Some(elements), &at(start), values, dtype, role).await?;
                Tensor::from_buffer_as(self.context, buffer, (start * size) as u64, memory, dtype)?
            }
        };
        Ok(tensor.with_layout(layout))
    }

    /// Writes values to the rows of a new buffer of so many elements, or of the one that all share.
    async fn hold(
        &self,
        elements: Option<usize>,
        rows: &Rows,
        values: &[f32],
        dtype: DType,
        role: Role,
    ) -> Result<wgpu::Buffer> {
        let size = dtype.size() as usize;
        if let Some(elements) = elements {
            let words = (elements * size).div_ceil(4).max(4);
            let buffer = self.context.zeros(&[words]).await?.buffer().clone();
            let initial = GUARD.repeat(buffer.size() as usize / 2);
            self.held.borrow_mut().push(Held { buffer, initial, written: Vec::new() });
        }
        let mut held = self.held.borrow_mut();
        let held = held.last_mut().expect("a buffer was made");
        let bytes = dtype.encode(values);
        for row in 0..rows.count {
            let begin = (rows.start + row * rows.stride) * size;
            let place = begin..begin + rows.len * size;
            let from = row * rows.len * size;
            held.initial[place.clone()].copy_from_slice(&bytes[from..from + rows.len * size]);
            if role == Role::Written {
                held.written.push(place);
            }
        }
        let changed = match elements {
            Some(_) => 0..held.initial.len(),
            None => rows.start * size..((rows.start + rows.len) * size).next_multiple_of(4),
        };
        let at = changed.start as u64;
        self.context.queue().write_buffer(&held.buffer, at, &held.initial[changed]);
        Ok(held.buffer.clone())
    }

    /// The first byte outside of what operations write that is not as it was; of all buffers with guards.
    pub async fn disturbed(&self) -> Result<Option<usize>> {
        let held = self.held.take();
        for Held { buffer, initial, written } in &held {
            let whole = Tensor::from_buffer(self.context, buffer.clone(), 0, &[initial.len() / 4])?;
            let mut now = self.context.download(&whole).await?;
            let now: &mut [u8] = bytemuck::cast_slice_mut(&mut now);
            for place in written {
                now[place.clone()].copy_from_slice(&initial[place.clone()]);
            }
            if let Some(byte) = now.iter().zip(initial).position(|(now, before)| now != before) {
                return Ok(Some(byte));
            }
        }
        Ok(None)
    }
}
