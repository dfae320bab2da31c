//! `--plot`: the results as an SVG, a column for each norm, layout, cache state, element type and what is fused.

mod bandwidth;
mod canvas;
mod layers;

use std::path::Path;

use plotters::style::RGBColor;

use super::BenchOp;
use super::report::{CaseReport, Report};
use crate::Refusal;
use canvas::{Anchor, Canvas, INK, MUTED, Marker, Point, text_width};

const MARGIN: f64 = 28.0;
/// Width of a column and the gap between two.
const COLUMN: f64 = 820.0;
const GAP: f64 = 40.0;
const HEADER: f64 = 136.0;
/// Height of a column's title.
const TITLE: f64 = 36.0;

const COPY: RGBColor = RGBColor(120, 120, 120);

/// How an operation is drawn.
struct Look {
    op: BenchOp,
    label: &'static str,
    colour: RGBColor,
    marker: Marker,
}

impl Look {
    /// Colours of Okabe & Ito ("Color universal design", 2008), which the colour-blind can tell apart.
    const ALL: [Self; 4] = [
        Self {
            op: BenchOp::TrainForward,
            label: "training forward",
            colour: RGBColor(0, 114, 178),
            marker: Marker::Circle,
        },
        Self {
            op: BenchOp::TrainBackward,
            label: "training backward",
            colour: RGBColor(213, 94, 0),
            marker: Marker::Square,
        },
        Self {
            op: BenchOp::Inference,
            label: "inference",
            colour: RGBColor(0, 158, 115),
            marker: Marker::Triangle,
        },
        Self {
            op: BenchOp::FrozenBackward,
            label: "frozen backward",
            colour: RGBColor(180, 90, 150),
            marker: Marker::Diamond,
        },
    ];
}

/// Draws a report into a file.
pub fn write(path: &Path, report: &Report) -> Result<(), Refusal> {
    let svg = draw(report)?;
    std::fs::write(path, svg).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(())
}

fn draw(report: &Report) -> Result<String, Refusal> {
    let mut columns: Vec<(String, Vec<&CaseReport>)> = Vec::new();
    for case in &report.cases {
        let title = title(case);
        match columns.iter_mut().find(|(known, _)| *known == title) {
            Some((_, cases)) => cases.push(case),
            None => columns.push((title, vec![case])),
        }
    }
    let looks = looks(report);
    let fastest = columns.iter().map(|(_, cases)| bandwidth::fastest(cases)).fold(0.0, f64::max);
    let count = columns.len().max(1) as f64;
    let width = 2.0 * MARGIN + count * COLUMN + (count - 1.0) * GAP;
    let height = HEADER + TITLE + bandwidth::HEIGHT + layers::height(looks.len()) + MARGIN;

    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg, width, height)?;
    header(&canvas, report, &looks)?;
    for (number, (title, cases)) in columns.iter().enumerate() {
        let left = MARGIN + number as f64 * (COLUMN + GAP);
        canvas.heading(title, (left, HEADER + 12.0), 17.0)?;
        bandwidth::draw(&canvas, cases, fastest, (left, HEADER + TITLE), COLUMN)?;
        layers::draw(&canvas, cases, &report.cases, (left, HEADER + TITLE + bandwidth::HEIGHT), COLUMN)?;
    }
    canvas.finish()?;
    Ok(svg)
}

/// The title of a case's column: what is not the default is named.
fn title(case: &CaseReport) -> String {
    let mut title = match case.norm {
        "batch" => String::new(),
        _ => format!("{} norm, ", case.norm_label().replace('_', " ")),
    };
    // Rows lie one way.
    if !is_of_rows(case) {
        title += &format!("{}, ", case.layout.replace('_', " "));
    }
    title += &format!("{} cache", case.cache);
    let (dtype, activation, residual, in_place, sum, gate, int8) = case.variant();
    let gate = gate.map(|gate| format!("gate {gate}"));
    let parts = [
        (sum, "sum"),
        (gate.is_some(), gate.as_deref().unwrap_or_default()),
        (dtype != "float32", dtype),
        (residual, "residual"),
        (activation != "none", activation),
        (in_place, "in place"),
        (int8, "int8"),
    ];
    for (_, part) in parts.iter().filter(|(named, _)| *named) {
        title.extend([", ", part]);
    }
    title
}

/// The operations that a report has.
fn looks(report: &Report) -> Vec<Look> {
    Look::ALL.into_iter().filter(|look| report.cases.iter().any(|case| case.op == look.op.name())).collect()
}

/// Whether a case has rows and no channels.
fn is_of_rows(case: &CaseReport) -> bool {
    !matches!(case.norm, "batch" | "group" | "instance" | "mean_variance" | "l2")
}

/// Title, what was measured where and when, and the legend.
fn header(canvas: &Canvas<'_>, report: &Report, looks: &[Look]) -> Result<(), Refusal> {
    let adapter = &report.adapter;
    let all_batch = report.cases.iter().all(|case| case.norm == "batch");
    let of = if all_batch { "Batch normalization" } else { "Normalization" };
    canvas.heading(&format!("{of} on {}", adapter.name), (MARGIN, 32.0), 22.0)?;
    let mut facts = vec![format!("{}, {}", adapter.backend, adapter.driver)];
    facts.extend(batch(&report.cases));
    let timed = report.cases.iter().find_map(|case| case.timing);
    facts.extend(timed.map(|timing| match timing.device_ns {
        Some(_) => "device time, medians".to_owned(),
        None => "wall time, medians".to_owned(),
    }));
    facts.extend(report.date.get(..10).map(str::to_owned));
    facts.extend(report.git.as_ref().map(|commit| format!("commit {commit}")));
    canvas.text(&facts.join("  ·  "), (MARGIN, 58.0), 12.5, MUTED, Anchor::Left)?;
    legend(canvas, looks, report.cases.iter().any(|case| case.norm == "batch"))
}

/// What the colours and marks are; only batch norm has a naive kernel.
fn legend(canvas: &Canvas<'_>, looks: &[Look], naive: bool) -> Result<(), Refusal> {
    let (first, second) = (84.0, 108.0);
    // Writes a label after a mark of some width; returns where the next entry starts.
    let entry = |(x, y): Point, mark: f64, label: &str| -> Result<f64, Refusal> {
        canvas.text(label, (x + mark + 8.0, y), 13.0, INK, Anchor::Left)?;
        Ok(x + mark + 8.0 + text_width(label, 13.0) + 22.0)
    };
    let mut x = MARGIN;
    for look in looks {
        canvas.line(&[(x, first), (x + 30.0, first)], look.colour, 2)?;
        canvas.marker(look.marker, (x + 15.0, first), look.colour)?;
        x = entry((x, first), 30.0, look.label)?;
    }
    canvas.line(&[(x, first), (x + 30.0, first)], COPY, 2)?;
    entry((x, first), 30.0, "copy kernel")?;

    x = MARGIN;
    for (alpha, label) in
        [(1.0, "bytes that the operation must move (floor)"), (0.3, "bytes that its plan moves")]
    {
        canvas.bar([(x, second - 7.0), (x + 20.0, second + 7.0)], MUTED, alpha)?;
        x = entry((x, second), 20.0, label)?;
    }
    if naive {
        layers::naive_mark(canvas, (x + 12.0, second), 12.0)?;
        entry((x, second), 24.0, "the naive kernel (floor)")?;
    }
    Ok(())
}

/// The batch size, if all shapes have the same, and channels.
fn batch(cases: &[CaseReport]) -> Option<String> {
    if cases.iter().any(is_of_rows) {
        return None;
    }
    let first = cases.first()?.shape.first()?;
    cases.iter().all(|case| case.shape.first() == Some(first)).then(|| format!("batch {first}"))
}
