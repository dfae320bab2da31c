//! Panel: bandwidth over tensor size, one line per operation and the copy's beside them.

use std::collections::BTreeMap;

use plotters::style::RGBColor;

use super::canvas::{Anchor, Axes, Canvas, INK, MUTED, Point, round_step};
use super::{COPY, Look};
use crate::Refusal;
use crate::bench::report::{CaseReport, Timing};

pub const HEIGHT: f64 = 330.0;

/// The highest bandwidth among cases, to give the panels of all columns one scale.
pub fn fastest(cases: &[&CaseReport]) -> f64 {
    let timed: Vec<_> = cases.iter().filter_map(|case| Some((*case, case.timing?))).collect();
    let copies = mean_by_size(timed.iter().map(|(case, timing)| (log_size(case), timing.copy_gbps)));
    let all = timed.iter().map(|(case, timing)| gbps(case, timing)).chain(copies.iter().map(|point| point.1));
    all.fold(0.0, f64::max)
}

/// Draws the panel; its top left corner is `at`.
pub fn draw(
    canvas: &Canvas<'_>,
    cases: &[&CaseReport],
    fastest: f64,
    at: Point,
    width: f64,
) -> Result<(), Refusal> {
    canvas.heading("Bandwidth by tensor size", (at.0, at.1 + 10.0), 14.0)?;
    let timed: Vec<(&CaseReport, Timing)> =
        cases.iter().filter_map(|case| Some((*case, case.timing?))).collect();
    if timed.is_empty() {
        return canvas.text("no case was timed", (at.0, at.1 + 40.0), 12.0, MUTED, Anchor::Left);
    }
    let sizes = timed.iter().map(|(case, _)| log_size(case));
    let (low, high) = sizes.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let step = round_step(1.05 * fastest, 6.0);
    let axes = Axes {
        left: at.0 + 62.0,
        top: at.1 + 32.0,
        width: width - 62.0 - 60.0,
        height: HEIGHT - 32.0 - 50.0,
        x: [low - 0.4, high + 0.4],
        y: [0.0, (1.05 * fastest / step).ceil() * step],
    };
    let decimals = (-step.log10()).ceil().max(0.0) as usize;
    axes.draw(canvas, step, &|value| format!("{value:.decimals$}"))?;
    canvas.vertical_text(
        "GB/s (floor bytes / time)",
        (at.0 + 12.0, axes.top + axes.height / 2.0),
        12.0,
        INK,
    )?;
    x_axis(canvas, &axes)?;

    let line = |points: &[Point]| -> Vec<Point> {
        mean_by_size(points.iter().copied()).into_iter().map(|point| axes.at(point)).collect()
    };
    let copies: Vec<_> = timed.iter().map(|(case, timing)| (log_size(case), timing.copy_gbps)).collect();
    let copies = line(&copies);
    canvas.line(&copies, COPY, 2)?;
    if let Some((_, y)) = copies.last() {
        canvas.text("copy", (axes.right() + 6.0, *y), 12.0, MUTED, Anchor::Left)?;
    }
    for look in Look::ALL {
        let of_op: Vec<_> = timed
            .iter()
            .filter(|(case, _)| case.op == look.op.name())
            .map(|(case, timing)| (log_size(case), gbps(case, timing)))
            .collect();
        let colour: RGBColor = look.colour;
        canvas.line(&line(&of_op), colour, 2)?;
        for point in of_op {
            canvas.marker(look.marker, axes.at(point), colour)?;
        }
    }
    Ok(())
}

/// Ticks at powers of two, as many as there is room for.
fn x_axis(canvas: &Canvas<'_>, axes: &Axes) -> Result<(), Refusal> {
    let (first, last) = (axes.x[0].ceil() as i32, axes.x[1].floor() as i32);
    let every = (f64::from(last - first + 1) * 64.0 / axes.width).ceil().max(1.0) as usize;
    for power in (first..=last).step_by(every) {
        let (x, y) = axes.at((f64::from(power), 0.0));
        canvas.line(&[(x, y), (x, y + 5.0)], INK, 1)?;
        canvas.text(&size(2.0_f64.powi(power)), (x, y + 15.0), 12.0, MUTED, Anchor::Centre)?;
    }
    let middle = axes.left + axes.width / 2.0;
    canvas.text("size of one tensor", (middle, axes.bottom() + 35.0), 12.0, INK, Anchor::Centre)
}

/// One point per x, at the mean of the points there.
fn mean_by_size(points: impl Iterator<Item = Point>) -> Vec<Point> {
    let mut by_size: BTreeMap<u64, (f64, Vec<f64>)> = BTreeMap::new();
    for (x, y) in points {
        // Positive floats order as their bits do.
        by_size.entry(x.to_bits()).or_insert((x, Vec::new())).1.push(y);
    }
    by_size.into_values().map(|(x, ys)| (x, ys.iter().sum::<f64>() / ys.len() as f64)).collect()
}

fn log_size(case: &CaseReport) -> f64 {
    let element = if case.dtype == "float32" { 4.0 } else { 2.0 };
    (element * case.shape.iter().map(|&dim| dim as f64).product::<f64>()).log2()
}

fn gbps(case: &CaseReport, timing: &Timing) -> f64 {
    case.floor_bytes as f64 / timing.ns()
}

fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = ((bytes.log2() / 10.0) as usize).min(units.len() - 1);
    format!("{} {}", bytes / 1024_f64.powi(unit as i32), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            (size(512.0), size(1024.0), size(65536.0)),
            ("512 B".into(), "1 KiB".into(), "64 KiB".into())
        );
        assert_eq!(size(f64::from(1 << 26)), "64 MiB");
    }

    #[test]
    fn equal_sizes_share_a_point_of_the_line() {
        let points = [(3.0, 2.0), (1.0, 1.0), (3.0, 4.0)];
        assert_eq!(mean_by_size(points.into_iter()), [(1.0, 1.0), (3.0, 3.0)]);
    }
}
