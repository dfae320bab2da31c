//! Where a tensor's elements are, and what lies in the same place.

use std::hash::Hash;
use std::ops::Range;

use super::{Part, Tensor};
use crate::base::shape::Shape;
use crate::engine::buffer::Buffer;

/// Distances in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Strides {
    /// Between the first elements of neighbouring samples (indices of the first axis).
    pub sample: u64,
    /// Between the first elements of neighbouring rows (of the last axis) of a sample.
    pub row: u64,
}

/// Where consecutive elements of a tensor are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Location {
    pub buffer: Buffer,
    /// Of the buffer, in bytes.
    pub size: u64,
    pub bytes: Range<u64>,
}

impl Tensor {
    /// Elements of a sample.
    pub(crate) fn sample_len(&self) -> u64 {
        Strides::dense(self.shape).sample
    }

    pub(crate) fn sample_stride(&self) -> u64 {
        self.strides.sample
    }

    pub(crate) fn row_stride(&self) -> u64 {
        self.strides.row
    }

    /// Elements by which rows, and samples, are further apart than in a dense tensor.
    pub(crate) fn skips(&self) -> (u64, u64) {
        let (row, sample) = (self.row_len(), self.sample_len());
        let rows = sample.checked_div(row).unwrap_or(0);
        (self.strides.row.saturating_sub(row), self.strides.sample.saturating_sub(rows * self.strides.row))
    }

    /// How far apart rows of so many elements are, of all that the tensor consists of one after the other, if that is the same everywhere and they lie in one
    /// buffer.
    pub(crate) fn rows_apart(&self, len: u64) -> Option<u64> {
        let (row, sample) = (self.row_len().max(1), self.sample_len().max(1));
        let Strides { sample: between_samples, row: between_rows } = self.strides;
        let dense_rows = between_rows == row;
        match len {
            _ if self.parts.len() != 1 => None,
            _ if self.is_dense() => Some(len),
            // Rows of the last axis; those of the next sample as far away as those of the same.
            _ if len == row && (sample == row || between_samples == sample / row * between_rows) => {
                Some(if sample == row { between_samples } else { between_rows })
            }
            _ if len == sample && dense_rows => Some(between_samples),
            _ => None,
        }
    }

    pub(crate) fn strides_are_multiples_of(&self, word: u64) -> bool {
        let (row, sample) = self.skips();
        row.is_multiple_of(word) && sample.is_multiple_of(word)
    }

    /// The first sample of each part.
    pub(crate) fn part_starts(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.samples.start)
    }

    /// How many samples each part has.
    pub(crate) fn part_samples(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.samples.end - part.samples.start)
    }

    /// The element of a word at which the given samples begin, if the buffer holds all of their last word.
    pub(crate) fn word_place(&self, begin: u64, end: u64) -> Option<u32> {
        let word = 4 * self.dtype.size();
        let len = self.sample_len();
        if begin >= end || len == 0 {
            return Some(0);
        }
        let Location { size, bytes, .. } = self.locate(begin * len..end * len);
        (bytes.end.next_multiple_of(word) <= size).then_some((bytes.start % word / self.dtype.size()) as u32)
    }

    /// Where the given elements are, which must not be none and lie in one part.
    pub(crate) fn locate(&self, elements: Range<u64>) -> Location {
        let sample = elements.start / self.sample_len().max(1);
        // Parts are in order.
        let at = self.parts.partition_point(|part| part.samples.end <= sample);
        self.locate_in(&self.parts[at.min(self.parts.len() - 1)], elements)
    }

    pub(super) fn locate_in(&self, part: &Part, elements: Range<u64>) -> Location {
        let (len, row) = (self.sample_len().max(1), self.row_len().max(1));
        let place = |element: u64| {
            let (sample, within) = (element / len - part.samples.start, element % len);
            sample * self.strides.sample + within / row * self.strides.row + within % row
        };
        let size = self.dtype.size();
        let (begin, end) = (place(elements.start), place(elements.end.max(1) - 1) + 1);
        Location {
            buffer: part.buffer.clone(),
            size: part.size,
            bytes: part.byte_offset + begin * size..part.byte_offset + end * size,
        }
    }

    /// Everything of it but where it is.
    pub(crate) fn form(&self) -> impl Hash {
        let samples: Vec<_> = self.parts.iter().map(|part| part.samples.clone()).collect();
        (self.shape, self.dtype, self.layout, self.strides, samples)
    }

    /// The buffers of the parts, and the first byte of each.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (&Buffer, u64)> {
        self.parts.iter().map(|part| (&part.buffer, part.byte_offset))
    }

    /// Where the parts are.
    pub(crate) fn locations(&self) -> impl Iterator<Item = Location> {
        let len = self.sample_len();
        let parts = self.parts.iter().filter(move |part| !part.samples.is_empty() && len > 0);
        parts.map(move |part| self.locate_in(part, part.samples.start * len..part.samples.end * len))
    }

    /// The values in the order of the shape, from the bytes of all locations in order.
    pub(crate) fn gather(&self, locations: &[Vec<u8>]) -> Vec<u8> {
        let (size, row) = (self.dtype.size() as usize, self.row_len() as usize);
        if self.is_dense() {
            return locations.concat();
        }
        let rows = self.sample_len().checked_div(self.row_len()).unwrap_or(0) as usize;
        let mut gathered = Vec::with_capacity(self.byte_len() as usize);
        for (part, bytes) in self.parts.iter().filter(|part| !part.samples.is_empty()).zip(locations) {
            for sample in 0..(part.samples.end - part.samples.start) as usize {
                for at in 0..rows {
                    let begin = sample * self.strides.sample as usize + at * self.strides.row as usize;
                    gathered.extend_from_slice(&bytes[begin * size..(begin + row) * size]);
                }
            }
        }
        gathered
    }

    /// Ranges of bytes of one buffer that both have elements of, unless these lie between each other.
    pub(crate) fn overlap(&self, other: &Tensor) -> Option<(Range<u64>, Range<u64>)> {
        let (mine, theirs): (Vec<_>, Vec<_>) = (self.locations().collect(), other.locations().collect());
        mine.iter().find_map(|a| {
            let met =
                theirs.iter().find(|b| a.meets(b) && !self.is_between(a.bytes.start, other, b.bytes.start));
            met.map(|b| (a.bytes.clone(), b.bytes.clone()))
        })
    }

    /// Ranges of bytes that two parts have in common.
    pub(crate) fn overlap_of_parts(&self) -> Option<(Range<u64>, Range<u64>)> {
        let all: Vec<_> = self.locations().collect();
        all.iter().enumerate().find_map(|(i, a)| {
            let met = all[i + 1..]
                .iter()
                .find(|b| a.meets(b) && !self.is_between(a.bytes.start, self, b.bytes.start));
            met.map(|b| (a.bytes.clone(), b.bytes.clone()))
        })
    }

    /// Whether two views with the same distances have no element in common: their rows, or samples, do not meet.
    pub(super) fn is_between(&self, start: u64, other: &Tensor, other_start: u64) -> bool {
        if self.dtype != other.dtype || self.strides != other.strides {
            return false;
        }
        let apart = start.abs_diff(other_start) / self.dtype.size();
        let (first, second) = if start <= other_start { (self, other) } else { (other, self) };
        let meet = |period: u64, first: u64, second: u64| {
            let within = apart % period.max(1);
            within < first || within + second > period
        };
        let rank_2 = self.shape.rank() == 2;
        let apart_in_rows = [self, other].iter().all(|tensor| tensor.strides.row > tensor.row_len());
        // Rows of different samples are in step.
        let in_step = self.strides.sample.is_multiple_of(self.strides.row.max(1));
        let (period, len): (u64, fn(&Tensor) -> u64) = match apart_in_rows && in_step && !rank_2 {
            true => (self.strides.row, Tensor::row_len),
            false => (self.strides.sample, Tensor::sample_hull),
        };
        !meet(period, len(first), len(second))
    }

    /// Whether both are the same elements of the same memory.
    pub(crate) fn is_same_place(&self, other: &Tensor) -> bool {
        self.parts == other.parts
            && self.shape == other.shape
            && self.dtype == other.dtype
            && self.strides == other.strides
    }

    /// Elements from the first to past the last of a sample.
    pub(super) fn sample_hull(&self) -> u64 {
        match self.sample_len() {
            0 => 0,
            len => (len - 1) / self.row_len() * self.strides.row + self.row_len(),
        }
    }

    pub(super) fn row_len(&self) -> u64 {
        Strides::dense(self.shape).row
    }

    /// Bytes from the first to past the last element of a tensor in one part.
    pub(super) fn hull_bytes(&self) -> Option<u64> {
        let samples = self.shape.dims()[0] as u64;
        if self.shape.len() == 0 {
            return Some(0);
        }
        let last = (samples - 1).checked_mul(self.strides.sample)?;
        last.checked_add(self.sample_hull())?.checked_mul(self.dtype.size())
    }
}

impl Location {
    /// Whether both lie in the same stretch of a buffer.
    pub fn meets(&self, other: &Location) -> bool {
        self.buffer == other.buffer
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

impl Strides {
    /// The same distances, written in the one way: those that no element depends on are those of a dense tensor.
    pub fn canonical(self, shape: Shape) -> Self {
        let dense = Self::dense(shape);
        let rows = dense.sample.checked_div(dense.row).unwrap_or(0);
        match shape.rank() {
            // Without elements none depends on anything, and distances may be beyond all addresses.
            _ if shape.len() == 0 => dense,
            1 if shape.dims()[0] > 1 => Self { sample: self.sample, ..dense },
            2 if shape.dims()[0] > 1 => Self { sample: self.sample, row: self.sample },
            1 | 2 => dense,
            _ => {
                let row = if rows > 1 { self.row } else { dense.row };
                let sample = if shape.dims()[0] > 1 { self.sample } else { rows * row };
                Self { sample, row }
            }
        }
    }

    pub fn dense(shape: Shape) -> Self {
        let dims = shape.dims();
        Self {
            sample: dims[1..].iter().map(|&dim| dim as u64).product(),
            row: if dims.len() > 1 { dims[dims.len() - 1] as u64 } else { 1 },
        }
    }
}
