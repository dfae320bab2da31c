//! A walk in words: how wide they are, how many, and which invocations walk what together.

use super::problem::{Alignment, Part, Pattern};
use super::tuned::{column_words, most_column_strips, one_or_all, team_rounds};
use super::{Capabilities, Tuning, Walk};
use crate::base::error::{Error, Result};

/// How memory is accessed.
pub(super) struct Words {
    pub width: u32,
    /// Slices begin or end inside of words.
    pub edges: bool,
}

impl Words {
    pub fn choose(walk: &Walk, tuning: &Tuning, reasons: &mut Vec<String>) -> Self {
        let (narrow, wide) = (walk.dtype.size(), 4 * walk.dtype.size());
        let scalar = |reasons: &mut Vec<String>, why: &str| {
            reasons.push(format!("words: {narrow} bytes, {why}"));
            Self { width: 1, edges: false }
        };
        if tuning.width == Some(1) {
            return scalar(reasons, "forced");
        }
        match walk.alignment {
            Alignment::Same => {}
            Alignment::Differs => {
                let why = format!("because the tensors begin at different places of {wide}-byte words");
                return scalar(reasons, &why);
            }
            Alignment::Groups => {
                let why = format!("because a {wide}-byte word could hold values of two groups");
                return scalar(reasons, &why);
            }
            Alignment::Permuted => {
                return scalar(reasons, "because neighbours are not neighbours in the other tensor");
            }
            Alignment::Cut => {
                let why = format!("because a buffer ends inside of its tensor's last {wide}-byte word");
                return scalar(reasons, &why);
            }
        }
        let phase = walk.parts.iter().map(|part| part.phase).max().unwrap_or(0);
        let edges = match walk.pattern {
            Pattern::Segments { inner, .. } | Pattern::Run { elements: inner } if inner < 3 => {
                return scalar(reasons, &format!("because a {wide}-byte word could hold more than two runs"));
            }
            Pattern::Run { .. } => {
                phase != 0 || walk.parts.iter().any(|part| !part.elements.is_multiple_of(4))
            }
            Pattern::Segments { inner, .. } => phase != 0 || !inner.is_multiple_of(4),
            Pattern::Columns { slices, .. } | Pattern::Matrices { slices, .. }
                if walk.unit_rows > 0
                    && (phase != 0 || !walk.unit_rows.is_multiple_of(rows_of_words(slices, 4))) =>
            {
                let why = format!(
                    "because a {wide}-byte word could hold values of two rows, which are not taken as one"
                );
                return scalar(reasons, &why);
            }
            Pattern::Columns { .. } | Pattern::Matrices { .. } => phase != 0,
        };
        reasons.push(match edges {
            false => format!("words: {wide} bytes"),
            true => format!("words: {wide} bytes with masks; tensors begin at element {phase} of one"),
        });
        Self { width: 4, edges }
    }
}

/// A pattern in words.
pub(super) struct Geometry {
    pub slices: u64,
    pub records: u64,
    /// What workgroups are divided among: slices, or the words of a row.
    pub columns: u64,
    pub slice_words: u64,
    pub run_words: u64,
    pub elements: u64,
    pub team_size: u32,
    pub strip: u32,
    /// Whether the last row of a matrix, or the last strip of a row, is not full.
    pub incomplete: bool,
}

impl Geometry {
    pub fn new(
        walk: &Walk,
        words: &Words,
        workgroup_size: u32,
        capabilities: &Capabilities,
        tuning: &Tuning,
        reasons: &mut Vec<String>,
    ) -> Result<Self> {
        let width = u64::from(words.width);
        let elements = walk.pattern.elements();
        let segments = |slices: u64, runs: u64, run_words: u64, reasons: &mut Vec<String>| {
            let slice_words = runs * run_words;
            Ok(Self {
                slices,
                records: slices,
                columns: slices,
                slice_words,
                run_words,
                elements,
                team_size: segment_team(
                    slices,
                    slice_words,
                    walk.tensors,
                    workgroup_size,
                    capabilities,
                    tuning,
                    reasons,
                )?,
                strip: 1,
                incomplete: false,
            })
        };
        match walk.pattern {
            Pattern::Run { .. } => {
                let words =
                    walk.parts.iter().map(|part| (u64::from(part.phase) + part.elements).div_ceil(width));
                segments(1, 1, words.sum(), reasons)
            }
            // With edges, the words that a run touches wherever it begins.
            Pattern::Segments { slices, samples, inner } => {
                let run_words = if words.edges { (inner + 2 * (width - 1)) / width } else { inner / width };
                segments(slices, samples, run_words, reasons)
            }
            Pattern::Columns { slices, samples, inner } | Pattern::Matrices { slices, samples, inner } => {
                let rows = samples * inner;
                let (repeat, strip, team_size) =
                    column_team(slices, rows, walk, words, workgroup_size, capabilities, tuning, reasons)?;
                let records = slices * repeat;
                let run_words = records / width;
                let rows_of = |part: &Part| {
                    let phase = if words.width == 1 { 0 } else { u64::from(part.phase) };
                    (phase + part.elements).div_ceil(records)
                };
                let full = |part: &Part| part.elements.is_multiple_of(records);
                Ok(Self {
                    slices,
                    records,
                    columns: run_words,
                    slice_words: walk.parts.iter().map(rows_of).sum(),
                    run_words,
                    elements,
                    team_size,
                    strip,
                    incomplete: !walk.parts.iter().all(full)
                        || strip > 1
                            && !run_words.is_multiple_of(u64::from(workgroup_size / team_size * strip)),
                })
            }
        }
    }

    /// Rows of a matrix, of those that are taken as one.
    pub fn matrix_rows(&self, inner: u64) -> u64 {
        inner * self.slices / self.records
    }

    /// Bytes of a row of columns, and from one to the next at most.
    pub fn row_bytes(&self, walk: &Walk) -> (u64, u64) {
        let bytes = self.records * walk.dtype.size();
        (bytes, bytes.max(walk.row_bytes))
    }

    /// Rows of a sample that lie within so many bytes.
    pub fn rows_within(&self, walk: &Walk, bytes: u64) -> u64 {
        let (row, distance) = self.row_bytes(walk);
        bytes.checked_sub(row).map_or(0, |more| 1 + more / distance)
    }
}

/// The largest power of two that divides the workgroup and is not above the smallest that holds `wanted`; all of the
/// workgroup if that is wanted.
fn team(wanted: u64, workgroup_size: u32) -> u32 {
    if wanted >= workgroup_size.into() {
        return workgroup_size;
    }
    let divisor = 1 << workgroup_size.trailing_zeros();
    (wanted as u32).next_power_of_two().min(divisor)
}

fn forced_team(tuning: &Tuning, workgroup_size: u32, reasons: &mut Vec<String>) -> Result<Option<u32>> {
    let Some(team_size) = tuning.team_size else { return Ok(None) };
    if !workgroup_size.is_multiple_of(team_size) {
        let expected = format!("a divisor of the workgroup's {workgroup_size} invocations");
        return Err(Error::Tuning { choice: "team_size", expected, got: team_size.into() });
    }
    reasons.push(format!("team: {team_size} forced"));
    Ok(Some(team_size))
}

/// Invocations that walk a slice of segments together.
fn segment_team(
    slices: u64,
    slice_words: u64,
    tensors: usize,
    workgroup_size: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Result<u32> {
    if let Some(forced) = forced_team(tuning, workgroup_size, reasons)? {
        return Ok(forced);
    }
    let rounds = team_rounds(capabilities);
    let team_size = match team(slice_words.div_ceil(rounds), workgroup_size) {
        2.. if one_or_all(tensors, capabilities) => workgroup_size,
        team_size => team_size,
    };
    reasons.push(format!(
        "team: {team_size} of {workgroup_size} invocations for {slice_words} words of each of {slices} slices, \
         {rounds} or more for each"
    ));
    Ok(team_size)
}

/// The fewest rows that are whole words.
fn rows_of_words(slices: u64, width: u64) -> u64 {
    (1..=width).find(|&rows| (slices * rows).is_multiple_of(width)).unwrap_or(width)
}

/// Rows that are taken as one, and invocations that walk a column together.
#[expect(clippy::too_many_arguments, reason = "one decision of the policy")]
fn column_team(
    slices: u64,
    rows: u64,
    walk: &Walk,
    words: &Words,
    workgroup_size: u32,
    capabilities: &Capabilities,
    tuning: &Tuning,
    reasons: &mut Vec<String>,
) -> Result<(u64, u32, u32)> {
    let width = u64::from(words.width);
    let whole = rows_of_words(slices, width);
    let forced = forced_team(tuning, workgroup_size, reasons)?;
    let width_of_block = column_words(slices * rows / width, workgroup_size, capabilities);
    let teams = |run_words: u64| match forced {
        Some(team_size) => workgroup_size / team_size,
        None => team(run_words.min(width_of_block), workgroup_size),
    };
    let row = |repeat: u64| slices * repeat / width;
    let idle = |repeat: u64, strip: u32| {
        let lanes = row(repeat).next_multiple_of(u64::from(teams(row(repeat)) * strip));
        (lanes - row(repeat)) as f64 / lanes as f64
    };
    // More rows cost more to fold: not so many that there is more to merge than there are steps in the walk.
    let rows_of_slice = if walk.unit_rows > 0 { walk.unit_rows } else { rows };
    let affordable = |repeat: &u64| *repeat == whole || rows_of_slice >= repeat * repeat * 8;
    let possible = |repeat: &u64| walk.unit_rows.is_multiple_of(*repeat);
    let candidates: Vec<u64> = match tuning.rows {
        // Rows that are apart are no one row.
        _ if walk.strided => vec![whole],
        Some(forced) if possible(&(whole * u64::from(forced))) => vec![whole * u64::from(forced)],
        Some(_) => vec![whole],
        None => (1..=8).map(|times| whole * times).filter(possible).filter(affordable).collect(),
    };
    // Strips as long as possible of as few rows as possible that no more than an eighth of the invocations are idle; best
    // none, which needs no masks, with strips of any length from three quarters of the longest.
    let bytes = slices * rows * walk.dtype.size();
    let longest = tuning.strip.unwrap_or(most_column_strips(row(whole), bytes, capabilities));
    let enough = |strip: u32, most: f64| {
        let repeat = candidates.iter().find(|&&repeat| idle(repeat, strip) <= most);
        repeat.map(|&repeat| (repeat, strip))
    };
    let full = (longest - longest / 4..=longest).rev().find_map(|strip| enough(strip, 0.0));
    let chosen = full.or_else(|| {
        let mut strips = [16, 8, 4, 2, 1].into_iter().filter(|&strip| strip <= longest);
        strips.find_map(|strip| enough(strip, 0.0).or_else(|| enough(strip, 0.125)))
    });
    let (repeat, strip) = chosen.unwrap_or_else(|| {
        let least = candidates.iter().min_by(|&&a, &&b| idle(a, 1).total_cmp(&idle(b, 1)));
        (least.copied().unwrap_or(whole), 1)
    });
    let run_words = row(repeat);
    let teams = teams(run_words);
    reasons.push(format!(
        "team: {} rows at a time, {teams} x {strip} of {run_words} columns per workgroup; {repeat} rows of {slices} \
         values as one leave {:.0} % of the invocations without a column",
        workgroup_size / teams,
        100.0 * idle(repeat, strip)
    ));
    Ok((repeat, strip, workgroup_size / teams))
}
