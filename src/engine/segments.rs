//! Segments: rows of a batch that belong together, of which every segment may have another number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Result};
use crate::engine::context::{Context, ContextId};
use crate::engine::slab::Slab;
use crate::plan::{NODE_PIECES, PIECE_ROWS};

/// Which neighbouring rows of x `[rows, C]` belong together: the nodes of each graph of a batch, the points of each cloud, the tokens of each of several packed sequences. No row is padding, and a
/// segment has any number of them, 0 included.
///
/// Norms over segments ([`Input::in_segments`](crate::Input::in_segments)) have statistics of each. Segments are made once for a batch, on the host, as tables on the GPU; clones share them. Work is shared out among
/// invocations in pieces of at most 64 rows, however long segments are, and what a segment gives, to the bit, depends on its rows alone: neither on the others nor on the device's plan.
///
/// ```
/// use wgnorm::{Context, InstanceNorm, NormOptions, Segments};
/// let context = Context::headless_blocking()?;
/// context.block_on(async {
///     // Two graphs, of three nodes and of two, with one feature.
///     let x = context.upload(&[5, 1], &[1.0, 2.0, 3.0, 40.0, 60.0]).await?;
///     let graphs = Segments::of_index(&context, &[0, 0, 0, 1, 1], 2).await?;
///     let layer = InstanceNorm::new(&context, 1, NormOptions::instance()).await?;
///     let y = context.download(&layer.infer(x.in_segments(&graphs)).await?).await?;
///     assert!(y[1].abs() < 1e-6 && (y[3] + 1.0).abs() < 1e-3 && (y[4] - 1.0).abs() < 1e-3);
///     Ok::<(), wgnorm::Error>(())
/// })?;
/// # Ok::<(), wgnorm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Segments(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    /// What tells them from all others.
    id: u64,
    home: ContextId,
    rows: u64,
    segments: u64,
    pieces: u64,
    /// First row, rows and segment of each piece.
    of_pieces: Slab,
    /// First piece, partial results, their distance, and rows of each segment.
    of_segments: Slab,
    /// Of each level of merges: how many there are, and their first piece, count and distance.
    levels: Vec<(u64, Slab)>,
}

/// A row of a table.
type Entry = [u32; 4];

/// What the tables hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cut {
    pieces: Vec<Entry>,
    spans: Vec<Entry>,
    levels: Vec<Vec<Entry>>,
}

impl Cut {
    fn of(lengths: impl Iterator<Item = u64>) -> Self {
        let (mut cut, mut row) = (Self::default(), 0);
        for (segment, length) in lengths.enumerate() {
            let first = cut.pieces.len() as u64;
            for start in (0..length).step_by(PIECE_ROWS as usize) {
                let rows = PIECE_ROWS.min(length - start);
                cut.pieces.push([row + start, rows, segment as u64, 0].map(|word| word as u32));
            }
            let (mut left, mut apart) = (length.div_ceil(PIECE_ROWS), 1);
            for level in 0.. {
                if left <= NODE_PIECES {
                    break;
                }
                if cut.levels.len() == level {
                    cut.levels.push(Vec::new());
                }
                for start in (0..left).step_by(NODE_PIECES as usize) {
                    let count = NODE_PIECES.min(left - start);
                    cut.levels[level].push([first + start * apart, count, apart, 0].map(|word| word as u32));
                }
                (left, apart) = (left.div_ceil(NODE_PIECES), apart * NODE_PIECES);
            }
            cut.spans.push([first, left, apart, length].map(|word| word as u32));
            row += length;
        }
        cut
    }
}

impl Segments {
    /// Segments of so many rows each, one behind the other.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for 2^31 rows and more, and those of an allocation.
    pub async fn of_lengths(context: &Context, lengths: &[usize]) -> Result<Self> {
        let limit = 1 << 31;
        let rows = lengths.iter().fold(0_u64, |rows, &length| rows.saturating_add(length as u64));
        let needed = rows.max(lengths.len() as u64);
        if needed >= limit {
            let (what, unit, limit_name) = ("segments", "rows", "most rows of segments");
            return Err(Error::TooLarge { what, needed, unit, limit_name, limit });
        }
        let cut = Cut::of(lengths.iter().map(|&length| length as u64));
        let table = async |entries: &[Entry]| -> Result<Slab> {
            let slab = Slab::new(context, "segments", size_of_val(entries) as u64).await?;
            if !entries.is_empty() {
                slab.write(context, "segments", bytemuck::cast_slice(entries)).await?;
            }
            Ok(slab)
        };
        let mut levels = Vec::new();
        for nodes in &cut.levels {
            levels.push((nodes.len() as u64, table(nodes).await?));
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self(Arc::new(Tables {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            home: context.id(),
            rows,
            segments: lengths.len() as u64,
            pieces: cut.pieces.len() as u64,
            of_pieces: table(&cut.pieces).await?,
            of_segments: table(&cut.spans).await?,
            levels,
        })))
    }

    /// Segments between offsets, of which there is one more: segment i has the rows `offsets[i]..offsets[i + 1]`. The first is 0, the last the number of rows: `ptr` of PyTorch Geometric, `cu_seqlens` of packed sequences.
    ///
    /// # Errors
    /// [`Error::Segments`] for offsets that do not begin with 0, or decrease; those of [`of_lengths`](Self::of_lengths).
    pub async fn of_offsets(context: &Context, offsets: &[usize]) -> Result<Self> {
        let what = "offset";
        match offsets.first() {
            Some(0) => {}
            first => {
                let got = first.map(|&got| got as u64);
                return Err(Error::Segments { what, place: 0, expected: "0".to_owned(), got });
            }
        }
        let mut lengths = Vec::with_capacity(offsets.len() - 1);
        for (i, pair) in offsets.windows(2).enumerate() {
            let length = pair[1].checked_sub(pair[0]).ok_or_else(|| Error::Segments {
                what,
                place: i + 1,
                expected: format!("{} or more, the offset before", pair[0]),
                got: Some(pair[1] as u64),
            })?;
            lengths.push(length);
        }
        Self::of_lengths(context, &lengths).await
    }

    /// Segments by the segment of each row, in order: `batch` of PyTorch Geometric. There are `segments` of them, of which some may have no row.
    ///
    /// # Errors
    /// [`Error::Segments`] for an index that decreases, or is none of so many segments; those of [`of_lengths`](Self::of_lengths).
    pub async fn of_index(context: &Context, index: &[u32], segments: usize) -> Result<Self> {
        let limit = 1 << 31;
        if segments as u64 >= limit {
            let (what, unit, limit_name) = ("segments", "segments", "most rows of segments");
            return Err(Error::TooLarge { what, needed: segments as u64, unit, limit_name, limit });
        }
        let (mut lengths, mut before) = (vec![0; segments], 0);
        for (place, &segment) in index.iter().enumerate() {
            if segment < before || segment as usize >= segments {
                let expected = match segments {
                    0 => "no row, because there are 0 segments".to_owned(),
                    _ => format!("{before} to {}, in order", segments - 1),
                };
                return Err(Error::Segments { what: "index", place, expected, got: Some(segment.into()) });
            }
            (lengths[segment as usize], before) = (lengths[segment as usize] + 1, segment);
        }
        Self::of_lengths(context, &lengths).await
    }

    /// How many there are.
    pub fn segments(&self) -> u64 {
        self.0.segments
    }

    /// Rows of all of them.
    pub fn rows(&self) -> u64 {
        self.0.rows
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    pub(crate) fn pieces(&self) -> u64 {
        self.0.pieces
    }

    pub(crate) fn of_pieces(&self) -> &Slab {
        &self.0.of_pieces
    }

    pub(crate) fn of_segments(&self) -> &Slab {
        &self.0.of_segments
    }

    pub(crate) fn levels(&self) -> &[(u64, Slab)] {
        &self.0.levels
    }

    /// Requires the context's device and as many rows.
    pub(crate) fn check(&self, context: &Context, rows: u64) -> Result<()> {
        if self.0.home != context.id() {
            return Err(Error::ForeignDevice { what: "segments" });
        }
        let (expected, got) = (rows as usize, self.0.rows as usize);
        match expected == got {
            true => Ok(()),
            false => Err(Error::Number { what: "rows of all segments, which are those of x", expected, got }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_piece_and_every_piece_in_one_tree() {
        let lengths = [0, 1, 64, 65, 1024, 1025, 0, 64 * 16 * 16 + 1, 3];
        let cut = Cut::of(lengths.into_iter());
        let mut rows = 0;
        for piece in &cut.pieces {
            assert_eq!(u64::from(piece[0]), rows);
            assert!((1..=64).contains(&piece[1]));
            rows += u64::from(piece[1]);
        }
        assert_eq!(rows, lengths.iter().sum::<u64>());
        // What every piece comes to, merged as the kernels do.
        let mut sums: Vec<u64> = cut.pieces.iter().map(|piece| piece[1].into()).collect();
        let merged = |sums: &[u64], node: &Entry| -> u64 {
            assert!(node[1] as u64 <= NODE_PIECES);
            (0..node[1]).map(|i| sums[(node[0] + i * node[2]) as usize]).sum()
        };
        for level in &cut.levels {
            for node in level {
                let all = merged(&sums, node);
                sums[node[0] as usize] = all;
            }
        }
        for (span, length) in cut.spans.iter().zip(lengths) {
            assert_eq!((merged(&sums, span), u64::from(span[3])), (length, length));
        }
        assert_eq!(cut.levels.len(), 2);
        // Few pieces take no level of their own.
        assert_eq!(Cut::of([1024; 40].into_iter()).levels.len(), 0);
    }
}
