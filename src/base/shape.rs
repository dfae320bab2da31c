//! Shapes of tensors, and how batch normalization reads them.

use std::fmt;

use crate::base::error::{Error, Result};

/// Axis lengths of a tensor, 1 to 5 of them, slowest first.
///
/// ```
/// let shape = wgnorm::Shape::new(&[8, 64, 56, 56])?;
/// assert_eq!(shape.len(), 8 * 64 * 56 * 56);
/// assert_eq!(shape.to_string(), "[8, 64, 56, 56]");
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; Shape::MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The largest number of axes.
    pub const MAX_RANK: usize = 5;

    /// # Errors
    /// [`Error::Rank`] unless there are 1 to 5 axes, [`Error::TooLarge`] if there are more than 2^60
    /// elements.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.is_empty() || dims.len() > Self::MAX_RANK {
            return Err(Error::Rank { what: "a tensor", expected: "1 to 5", got: dims.len() });
        }
        let mut elements: u64 = 1;
        for &dim in dims.iter().filter(|&&dim| dim != 0) {
            elements = elements.checked_mul(dim as u64).filter(|&n| n <= i64::MAX as u64 / 8).ok_or(
                Error::TooLarge {
                    what: "a tensor",
                    needed: u64::MAX,
                    unit: "elements",
                    limit_name: "largest tensor",
                    limit: i64::MAX as u64 / 8,
                },
            )?;
        }
        let mut shape = Self { dims: [1; Self::MAX_RANK], rank: dims.len() };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// The shape of a value per channel.
    pub(crate) fn per_channel(channels: u64) -> Self {
        let mut shape = Self { dims: [1; Self::MAX_RANK], rank: 1 };
        shape.dims[0] = channels as usize;
        shape
    }

    /// Axis lengths, slowest first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements.
    #[expect(clippy::len_without_is_empty, reason = "a shape is a description; `len() == 0` reads better")]
    pub fn len(&self) -> u64 {
        self.dims().iter().map(|&dim| dim as u64).product()
    }

    /// Reads the shape as the one of a batch, `[N, C, …]` or `[N, …, C]`.
    ///
    /// # Errors
    /// [`Error::Rank`] unless the rank is 2 to 5, [`Error::Channels`] if there are no channels.
    pub fn channels(&self, layout: Layout) -> Result<Channels> {
        if self.rank < 2 {
            return Err(Error::Rank { what: "x", expected: "2 to 5", got: self.rank });
        }
        let (channels, spatial) = match layout {
            Layout::ChannelsFirst => (self.dims[1], 2..self.rank),
            Layout::ChannelsLast => (self.dims[self.rank - 1], 1..self.rank - 1),
        };
        if channels == 0 {
            return Err(Error::Channels { what: "x", expected: 1, got: 0 });
        }
        let inner = self.dims[spatial].iter().map(|&dim| dim as u64).product();
        Ok(Channels { samples: self.dims[0] as u64, channels: channels as u64, inner, layout })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tensor as batch normalization sees it: a mean and a variance per channel, over samples and positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channels {
    /// N.
    pub samples: u64,
    /// C.
    pub channels: u64,
    /// Product of the spatial axes (1 for rank 2).
    pub inner: u64,
    /// Where the channels lie.
    pub layout: Layout,
}

impl Channels {
    /// Whether values of a position follow each other, and positions each other.
    pub(crate) fn walks_rows(&self) -> bool {
        self.layout == Layout::ChannelsLast || self.inner == 1
    }

    /// Values per channel: what one mean and one variance are taken over.
    pub const fn count(&self) -> u64 {
        self.samples * self.inner
    }

    /// Number of elements.
    pub const fn elements(&self) -> u64 {
        self.count() * self.channels
    }

    /// The channel of an element, by its index in memory; 0 for a tensor without elements.
    pub fn channel_of(&self, element: u64) -> u64 {
        let position = match self.layout {
            Layout::ChannelsFirst => element / self.inner.max(1),
            Layout::ChannelsLast => element,
        };
        position % self.channels.max(1)
    }
}

/// Order of the axes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// `[N, C]`, `[N, C, L]`, `[N, C, H, W]`, `[N, C, D, H, W]`, row-major.
    #[default]
    ChannelsFirst,
    /// `[N, C]`, `[N, L, C]`, `[N, H, W, C]`, `[N, D, H, W, C]`, row-major.
    ChannelsLast,
}

impl Layout {
    /// The name that the benchmark and conformance files use.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::ChannelsFirst => "channels_first",
            Layout::ChannelsLast => "channels_last",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_one_to_five_are_shapes() {
        assert!(Shape::new(&[]).is_err());
        for rank in 1..=5 {
            assert_eq!(Shape::new(&vec![2; rank]).unwrap().len(), 1 << rank);
        }
        assert!(Shape::new(&[1; 6]).is_err());
    }

    #[test]
    fn element_counts_do_not_overflow() {
        assert!(matches!(Shape::new(&[usize::MAX, 2]), Err(Error::TooLarge { .. })));
        assert!(matches!(Shape::new(&[usize::MAX, 0, 2]), Err(Error::TooLarge { .. })));
        assert_eq!(Shape::new(&[1 << 20, 1 << 20, 1 << 10]).unwrap().len(), 1 << 50);
    }

    #[test]
    fn both_layouts_read_all_ranks() {
        let first = |dims: &[usize]| Shape::new(dims).unwrap().channels(Layout::ChannelsFirst);
        let last = |dims: &[usize]| Shape::new(dims).unwrap().channels(Layout::ChannelsLast);
        let of = |samples, channels, inner, layout| Ok(Channels { samples, channels, inner, layout });
        assert_eq!(first(&[6, 3]), of(6, 3, 1, Layout::ChannelsFirst));
        assert_eq!(last(&[6, 3]), of(6, 3, 1, Layout::ChannelsLast));
        assert_eq!(first(&[2, 5, 9]).unwrap().inner, 9);
        assert_eq!(first(&[2, 5, 9, 3]).unwrap().inner, 27);
        assert_eq!(first(&[2, 5, 9, 3, 2]).unwrap().count(), 2 * 54);
        assert_eq!(last(&[2, 9, 3, 5]), of(2, 5, 27, Layout::ChannelsLast));
        assert_eq!(last(&[2, 9, 3, 2, 5]).unwrap().count(), 2 * 54);
        assert_eq!(first(&[0, 5, 9]).unwrap().elements(), 0);
        for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
            let read = |dims: &[usize]| Shape::new(dims).unwrap().channels(layout);
            assert!(matches!(read(&[5]), Err(Error::Rank { got: 1, .. })));
            assert!(matches!(read(&[5, 0]), Err(Error::Channels { got: 0, .. })));
            assert_eq!(read(&[2, 3, 0, 4]).unwrap().channel_of(0), 0);
        }
    }

    #[test]
    fn elements_know_their_channel() {
        let channels = |layout| {
            let view = Channels { samples: 2, channels: 3, inner: 2, layout };
            (0..12).map(|element| view.channel_of(element)).collect::<Vec<_>>()
        };
        assert_eq!(channels(Layout::ChannelsFirst), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        assert_eq!(channels(Layout::ChannelsLast), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }
}
