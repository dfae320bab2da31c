//! Windows: a walk cut into ranges that one dispatch can bind, always between the tiles of the reduction, so that a walk
//! in windows merges the same partial results as a walk in one.

use super::geometry::{Geometry, Words};
use super::plan::Window;
use super::problem::{Part, Pattern};
use super::tiles::Tiles;
use super::{Capabilities, Walk};
use crate::base::error::{Error, Result};

/// What the windows of a walk have in common.
pub(super) struct Cutter<'a> {
    pub walk: &'a Walk,
    pub words: &'a Words,
    pub geometry: &'a Geometry,
    pub tiles: Tiles,
    /// Teams of a workgroup, times words of a strip.
    pub teams: u64,
    pub capabilities: &'a Capabilities,
    /// Bytes of a binding, and those that a window should have within one.
    pub limit: u64,
    pub room: u64,
    /// Bytes that a window can have on the device: it has at least one tile.
    pub most: u64,
    /// Slices (segments), or words of a row (columns), that a group has, where all tensors fit into a window.
    pub group: Option<u64>,
}

impl Cutter<'_> {
    /// All windows, in order, and the tiles per slice.
    pub fn cut(&self) -> Result<(Vec<Window>, u64)> {
        let mut windows = Vec::new();
        let (mut start, mut split) = (0, 0);
        for part in self.walk.parts.iter().filter(|part| part.elements > 0) {
            split += match self.walk.pattern {
                Pattern::Run { .. } => self.cut_run(*part, start, split, &mut windows)?,
                Pattern::Columns { .. } | Pattern::Matrices { .. } => {
                    self.cut_columns(*part, start, split, &mut windows)?
                }
                Pattern::Segments { slices, inner, .. } => {
                    self.cut_segments(*part, start, split, slices, inner, &mut windows)?
                }
            };
            start += part.elements;
        }
        Ok((windows, split))
    }

    /// One run of words.
    fn cut_run(&self, part: Part, start: u64, split: u64, windows: &mut Vec<Window>) -> Result<u64> {
        let Tiles::Whole(tile) = self.tiles else { unreachable!("a run has tiles of words") };
        let width = u64::from(self.words.width);
        let phase = self.phase(part);
        let total = (phase + part.elements).div_ceil(width);
        let all_tiles = total.div_ceil(tile);
        let at_once =
            if self.fits(part) { all_tiles } else { self.tiles_of(tile * width * self.walk.dtype.size())? };
        for first in (0..all_tiles).step_by(at_once as usize) {
            let tiles = at_once.min(all_tiles - first);
            let begin = (first * tile * width).saturating_sub(phase);
            let end = ((first + tiles) * tile * width - phase).min(part.elements);
            self.run_window(
                windows,
                start + begin..start + end,
                if first == 0 { phase } else { 0 },
                |window| {
                    (window.first_slice, window.slices) = (0, 1);
                    window.first_split = narrow(split + first)?;
                    window.splits = narrow(tiles)?;
                    Ok(())
                },
            )?;
        }
        Ok(all_tiles)
    }

    /// A window that is one run, or a part of one.
    fn run_window(
        &self,
        windows: &mut Vec<Window>,
        elements: std::ops::Range<u64>,
        phase: u64,
        place: impl FnOnce(&mut Window) -> Result<()>,
    ) -> Result<()> {
        let len = elements.end - elements.start;
        let words = (phase + len).div_ceil(self.words.width.into());
        let mut window = self.window(elements, phase)?;
        window.slice_words = narrow(words)?;
        window.run_words = window.slice_words;
        window.slice_stride = narrow(if self.words.edges { len } else { words })?;
        window.run_stride = window.slice_stride;
        window.inner = narrow(len)?;
        place(&mut window)?;
        (window.span_words, window.span_tiles) = (window.slice_words, window.splits);
        self.finish(windows, window, 1)
    }

    /// Rows of a matrix.
    fn cut_columns(&self, part: Part, start: u64, split: u64, windows: &mut Vec<Window>) -> Result<u64> {
        let Tiles::Whole(tile) = self.tiles else { unreachable!("columns have tiles of rows") };
        let Geometry { records, run_words, .. } = *self.geometry;
        let (Pattern::Columns { slices, inner, .. } | Pattern::Matrices { slices, inner, .. }) =
            self.walk.pattern
        else {
            unreachable!("columns")
        };
        let phase = self.phase(part);
        let rows = (phase + part.elements).div_ceil(records);
        let all_tiles = rows.div_ceil(tile);
        let whole = self.fits(part);
        let mut first = 0;
        while first < all_tiles {
            let tiles = match whole {
                true => all_tiles,
                false => self.tiles_of_rows(first * tile, tile, rows, inner)?,
            };
            let begin = (first * tile * records).saturating_sub(phase);
            let end = ((first + tiles) * tile * records - phase).min(part.elements);
            let mut window = self.window(start + begin..start + end, phase)?;
            window.before = if first == 0 { window.phase } else { 0 };
            (window.first_slice, window.slices) = (0, narrow(slices)?);
            window.first_split = narrow(split + first)?;
            window.splits = narrow(tiles)?;
            window.first_row = narrow((start + begin) / slices % inner)?;
            window.slice_words = narrow((u64::from(window.before) + end - begin).div_ceil(records))?;
            window.run_words = narrow(run_words)?;
            window.slice_stride = 1;
            window.run_stride = window.run_words;
            window.inner = narrow(inner)?;
            let group = self.group.unwrap_or(run_words);
            for column in (0..run_words).step_by(group as usize) {
                let window = Window { first_column: narrow(column)?, ..window.clone() };
                self.finish(windows, window, group.min(run_words - column))?;
            }
            first += tiles;
        }
        Ok(all_tiles)
    }

    /// Runs of several slices in each sample.
    fn cut_segments(
        &self,
        part: Part,
        start: u64,
        split: u64,
        slices: u64,
        inner: u64,
        windows: &mut Vec<Window>,
    ) -> Result<u64> {
        let run_words = self.geometry.run_words;
        let (sample, size) = (slices * inner, self.walk.dtype.size());
        let samples = part.elements / sample;
        let (per_tile, per_run) = match self.tiles {
            Tiles::Whole(samples) => (samples, 1),
            Tiles::OfRuns { per_run, .. } => (1, per_run),
        };
        let all_tiles = samples.div_ceil(per_tile) * per_run;
        let phase = self.phase(part);
        let phase_at = |element: u64| (phase + element) % u64::from(self.words.width);
        let tile_bytes = per_tile * self.walk.sample_bytes.max(1);
        let samples_fit = match self.room / tile_bytes {
            0 if per_tile > 1 && tile_bytes <= self.most => per_tile,
            tiles => tiles * per_tile,
        };
        let unit = if self.words.edges { 1 } else { u64::from(self.words.width) };
        let whole =
            |elements: std::ops::Range<u64>, first_slice: u64, many: u64, runs: u64| -> Result<Window> {
                let at = phase_at(elements.start);
                let mut window = self.window(start + elements.start..start + elements.end, at)?;
                (window.first_slice, window.slices) = (narrow(first_slice)?, narrow(many)?);
                window.slice_words = narrow(runs * run_words)?;
                window.run_words = narrow(run_words)?;
                window.slice_stride = narrow(inner / unit)?;
                // Of no meaning where there is one run, and then perhaps beyond the address range.
                window.run_stride = if runs == 1 { 0 } else { narrow(sample / unit)? };
                window.inner = narrow(inner)?;
                Ok(window)
            };
        if let Some(group) = self.group {
            let last = (samples - 1) * sample;
            for first in (0..slices).step_by(group as usize) {
                let many = group.min(slices - first);
                let elements = first * inner..last + (first + many) * inner;
                let mut window = whole(elements, first, many, samples)?;
                (window.first_split, window.splits) = (narrow(split)?, narrow(all_tiles)?);
                self.finish(windows, window, many)?;
            }
            return Ok(all_tiles);
        }
        if self.fits(part) || samples_fit > 0 {
            let at_once = if self.fits(part) { samples } else { samples_fit };
            for first in (0..samples).step_by(at_once as usize) {
                let runs = at_once.min(samples - first);
                let mut window = whole(first * sample..(first + runs) * sample, 0, slices, runs)?;
                window.first_split = narrow(split + first / per_tile * per_run)?;
                window.splits = narrow(runs.div_ceil(per_tile) * per_run)?;
                self.finish(windows, window, slices)?;
            }
            return Ok(all_tiles);
        }
        // A sample exceeds a window: some slices of it, or some tiles of a slice, at once.
        if per_tile > 1 {
            return Err(too_large(tile_bytes, self.most));
        }
        let run_bytes = inner * size;
        // Where slices are rows, they may be apart, and all of them are one sample.
        let apart = match self.walk.strided && samples == 1 {
            true => self.walk.sample_bytes / slices.max(1),
            false => run_bytes,
        };
        for at in 0..samples {
            if run_bytes <= self.room {
                let at_once = (self.room / apart.max(1)).max(1);
                for first in (0..slices).step_by(at_once as usize) {
                    let many = at_once.min(slices - first);
                    let begin = at * sample + first * inner;
                    let mut window = whole(begin..begin + many * inner, first, many, 1)?;
                    window.first_split = narrow(split + at * per_run)?;
                    window.splits = narrow(per_run)?;
                    self.finish(windows, window, many)?;
                }
                continue;
            }
            let Tiles::OfRuns { words: tile, .. } = self.tiles else {
                return Err(too_large(run_bytes, self.most));
            };
            let width = u64::from(self.words.width);
            let at_once = self.tiles_of(tile * width * size)?;
            for slice in 0..slices {
                let begin = at * sample + slice * inner;
                let lead = phase_at(begin);
                // Where the run touches a word less than it may, the last tile can be empty: no window of its own.
                let touched = (lead + inner).div_ceil(tile * width);
                for first in (0..touched).step_by(at_once as usize) {
                    let tiles = if first + at_once >= touched { per_run - first } else { at_once };
                    let low = (first * tile * width).saturating_sub(lead).min(inner);
                    let high = ((first + tiles) * tile * width - lead).min(inner);
                    let elements = start + begin + low..start + begin + high;
                    let phase = if first == 0 { lead } else { 0 };
                    self.run_window(windows, elements, phase, |window| {
                        (window.first_slice, window.slices) = (narrow(slice)?, 1);
                        window.first_split = narrow(split + at * per_run + first)?;
                        window.splits = narrow(tiles)?;
                        Ok(())
                    })?;
                }
            }
        }
        Ok(all_tiles)
    }

    /// Whether a part can be bound as it is.
    fn fits(&self, part: Part) -> bool {
        self.walk.fits(&part, self.limit)
    }

    /// Tiles of so many bytes in a window.
    fn tiles_of(&self, tile_bytes: u64) -> Result<u64> {
        match self.room / tile_bytes {
            0 if tile_bytes > self.most => Err(too_large(tile_bytes, self.most)),
            tiles => Ok(tiles.max(1)),
        }
    }

    /// Tiles of rows, from a row on, in a window: as many as lie within its bytes, gaps between samples included.
    fn tiles_of_rows(&self, begin: u64, tile: u64, rows: u64, inner: u64) -> Result<u64> {
        let (row_bytes, distance) = self.geometry.row_bytes(self.walk);
        if !self.walk.strided {
            return Ok(self.tiles_of(tile * row_bytes)?.min((rows - begin).div_ceil(tile)));
        }
        let place = |row: u64| row / inner * self.walk.sample_bytes + row % inner * distance;
        let bytes = |tiles: u64| place((begin + tiles * tile).min(rows) - 1) + row_bytes - place(begin);
        if bytes(1) > self.most {
            return Err(too_large(bytes(1), self.most));
        }
        let mut tiles = 1;
        while begin + tiles * tile < rows && bytes(tiles + 1) <= self.room {
            tiles += 1;
        }
        Ok(tiles)
    }

    fn phase(&self, part: Part) -> u64 {
        if self.words.width == 1 { 0 } else { part.phase.into() }
    }

    fn window(&self, elements: std::ops::Range<u64>, phase: u64) -> Result<Window> {
        let len = elements.end - elements.start;
        // Places in a window are 32 bit, and so are places with the values before it.
        narrow(len + u64::from(self.words.width)).map_err(|_| too_many(len))?;
        Ok(Window {
            elements,
            first_slice: 0,
            slices: 0,
            first_column: 0,
            first_split: 0,
            splits: 0,
            first_row: 0,
            blocks: 0,
            slice_words: 0,
            span_words: 0,
            span_tiles: 0,
            run_words: 0,
            slice_stride: 0,
            run_stride: 0,
            inner: 0,
            phase: phase as u32,
            before: phase as u32,
            grid: [0; 2],
        })
    }

    /// Adds spans and grid; `columns` are what workgroups are divided among.
    fn finish(&self, windows: &mut Vec<Window>, mut window: Window, columns: u64) -> Result<()> {
        if window.span_tiles == 0 {
            (window.span_words, window.span_tiles) = match self.tiles {
                Tiles::Whole(_) => (window.slice_words, window.splits),
                Tiles::OfRuns { per_run, .. } => (window.run_words, narrow(per_run)?),
            };
        }
        let blocks = columns.div_ceil(self.teams);
        window.blocks = narrow(blocks)?;
        window.grid = grid(blocks * u64::from(window.splits), self.capabilities)?;
        windows.push(window);
        Ok(())
    }
}

pub(super) fn narrow(words: u64) -> Result<u32> {
    addressed("x", words, "words")
}

/// A number that kernels count with 32 bits.
pub(crate) fn addressed(what: &'static str, needed: u64, unit: &'static str) -> Result<u32> {
    let limit = u32::MAX.into();
    u32::try_from(needed).map_err(|_| Error::TooLarge {
        what,
        needed,
        unit,
        limit_name: "address range",
        limit,
    })
}

fn too_many(elements: u64) -> Error {
    Error::TooLarge {
        what: "a window of x",
        needed: elements,
        unit: "values",
        limit_name: "address range",
        limit: u32::MAX.into(),
    }
}

fn too_large(bytes: u64, limit: u64) -> Error {
    Error::TooLarge { what: "a tile of x", needed: bytes, unit: "bytes", limit_name: "largest window", limit }
}

pub(super) fn grid(groups: u64, capabilities: &Capabilities) -> Result<[u32; 2]> {
    let limit = u64::from(capabilities.max_workgroups_per_dimension);
    let rows = groups.div_ceil(limit);
    if rows > limit {
        return Err(Error::TooLarge {
            what: "x",
            needed: groups,
            unit: "workgroups",
            limit_name: "max_compute_workgroups_per_dimension squared",
            limit: limit * limit,
        });
    }
    Ok([groups.div_ceil(rows) as u32, rows as u32])
}
