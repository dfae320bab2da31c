//! Panels: per operation, a bar for every layer shape in the order of the network, as a fraction of the copy's speed.

use plotters::style::{RGBColor, WHITE};

use super::canvas::{Anchor, Axes, Canvas, INK, MUTED, Point, round_step};
use super::{COPY, Look, is_of_rows};
use crate::Refusal;
use crate::bench::report::{CaseReport, Timing};

const PANEL: f64 = 162.0;
const TOP: f64 = 26.0;
const LABELS: f64 = 62.0;
/// How wide a label under a bar is, and the widest slot of a bar.
const LABEL_WIDTH: f64 = 50.0;
const WIDEST_SLOT: f64 = 90.0;

/// Height of the panels of `ops` operations.
pub fn height(ops: usize) -> f64 {
    TOP + ops as f64 * PANEL + LABELS
}

/// Draws the panels of one column; their top left corner is `at`. `all` cases give the columns one scale.
pub fn draw(
    canvas: &Canvas<'_>,
    cases: &[&CaseReport],
    all: &[CaseReport],
    at: Point,
    width: f64,
) -> Result<(), Refusal> {
    let heading = "Speed of every layer shape, as a fraction of a copy's (figures: floor)";
    canvas.heading(heading, (at.0, at.1 + 10.0), 14.0)?;
    let looks: Vec<_> =
        Look::ALL.into_iter().filter(|look| cases.iter().any(|case| case.op == look.op.name())).collect();
    for (row, look) in looks.iter().enumerate() {
        let of_op: Vec<_> = cases.iter().filter(|case| case.op == look.op.name()).copied().collect();
        let highest = all
            .iter()
            .filter(|case| case.op == look.op.name())
            .filter_map(|case| case.timing.as_ref())
            .map(|timing| timing.plan_fraction.max(naive_fraction(timing).unwrap_or(0.0)));
        let axes = Axes {
            left: at.0 + 62.0,
            top: at.1 + TOP + row as f64 * PANEL + 30.0,
            width: width - 62.0 - 60.0,
            height: PANEL - 54.0,
            x: [0.0, (width - 122.0) / slot(of_op.len(), width - 122.0)],
            y: [0.0, highest.fold(1.0, f64::max) * 1.04],
        };
        panel(canvas, &axes, look, &of_op)?;
        if row + 1 == looks.len() {
            labels(canvas, &axes, &of_op)?;
        }
    }
    Ok(())
}

fn panel(canvas: &Canvas<'_>, axes: &Axes, look: &Look, cases: &[&CaseReport]) -> Result<(), Refusal> {
    canvas.text(look.label, (axes.left, axes.top - 11.0), 13.0, look.colour, Anchor::Left)?;
    let step = if axes.y[1] > 1.6 { round_step(axes.y[1], 5.0) } else { 0.25 };
    axes.draw(canvas, step, &|value| format!("{:.0} %", 100.0 * value))?;
    let half = (0.36 * slot(cases.len(), axes.width)).min(24.0);
    for (index, case) in cases.iter().enumerate() {
        let (x, base) = axes.at((index as f64 + 0.5, 0.0));
        let Some(timing) = &case.timing else {
            canvas.text("failed", (x, base - 8.0), 10.0, INK, Anchor::Centre)?;
            continue;
        };
        bar(canvas, axes, timing, look.colour, (x, base), half)?;
    }
    let (_, y) = axes.at((0.0, 1.0));
    canvas.dashed(axes.left, axes.right(), y, COPY)?;
    canvas.text("copy", (axes.right() + 6.0, y), 12.0, MUTED, Anchor::Left)
}

fn bar(
    canvas: &Canvas<'_>,
    axes: &Axes,
    timing: &Timing,
    colour: RGBColor,
    (x, base): Point,
    half: f64,
) -> Result<(), Refusal> {
    let top = |fraction: f64| axes.at((0.0, fraction)).1;
    let floor = top(timing.floor_fraction);
    canvas.bar([(x - half, top(timing.plan_fraction)), (x + half, base)], colour, 0.3)?;
    canvas.bar([(x - half, floor), (x + half, base)], colour, 1.0)?;
    if half > 11.0 {
        let label = format!("{:.0} %", 100.0 * timing.floor_fraction);
        canvas.text(&label, (x, base + 10.0), 11.0, colour, Anchor::Centre)?;
    }
    if let Some(fraction) = naive_fraction(timing) {
        naive_mark(canvas, (x, top(fraction)), 1.14 * half)?;
    }
    Ok(())
}

/// The floor fraction of the naive baseline.
fn naive_fraction(timing: &Timing) -> Option<f64> {
    timing.speedup.map(|speedup| timing.floor_fraction / speedup)
}

/// The mark of the naive baseline: black, on white where it crosses a bar.
pub fn naive_mark(canvas: &Canvas<'_>, (x, y): Point, half: f64) -> Result<(), Refusal> {
    canvas.bar([(x - half, y - 2.0), (x + half, y + 2.0)], WHITE, 1.0)?;
    canvas.bar([(x - half, y - 1.0), (x + half, y + 1.0)], INK, 1.0)
}

/// Channels and spatial axes, or rows and their length, and the number of layers under the bars, as many as there is room for.
fn labels(canvas: &Canvas<'_>, axes: &Axes, cases: &[&CaseReport]) -> Result<(), Refusal> {
    let every = (LABEL_WIDTH / slot(cases.len(), axes.width)).ceil().max(1.0) as usize;
    let of_rows = cases.iter().any(|case| is_of_rows(case));
    let [first, second] = if of_rows { ["rows", "length"] } else { ["channels", "map"] };
    let names = [(28.0, first), (42.0, second), (56.0, "layers")];
    for (below, name) in names {
        canvas.text(name, (axes.left - 8.0, axes.bottom() + below), 11.0, MUTED, Anchor::Right)?;
    }
    for (index, case) in cases.iter().enumerate().step_by(every) {
        let (x, base) = axes.at((index as f64 + 0.5, 0.0));
        let (above, below) =
            if of_rows { case.shape.split_at(case.shape.len() - 1) } else { case.shape[1..].split_at(1) };
        let lengths = |dims: &[usize]| dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
        let lines = [lengths(above), lengths(below), format!("×{}", case.multiplicity)];
        for (line, (below, _)) in lines.iter().zip(names) {
            canvas.text(line, (x, base + below), 11.0, INK, Anchor::Centre)?;
        }
    }
    Ok(())
}

/// Width of one bar with its gap.
fn slot(bars: usize, width: f64) -> f64 {
    (width / bars.max(1) as f64).min(WIDEST_SLOT)
}
