//! Lines of several runs, with the range between them, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

pub struct Figure {
    pub caption: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// Whether x is.
    pub logarithmic: bool,
    pub lines: Vec<Line>,
}

/// Means of runs, and their range.
pub struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

#[derive(Clone, Copy)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub low: f64,
    pub high: f64,
}

/// Okabe and Ito's, which are told apart without colour vision; lines have marks of their own besides.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
];

impl Line {
    /// Of runs that have the same x.
    pub fn of_runs(name: &str, runs: impl IntoIterator<Item = Vec<(f64, f64)>>) -> Self {
        let runs: Vec<Vec<(f64, f64)>> = runs.into_iter().collect();
        let point = |i: usize| {
            let values: Vec<f64> = runs.iter().map(|run| run[i].1).collect();
            Point {
                x: runs[0][i].0,
                y: values.iter().sum::<f64>() / values.len() as f64,
                low: values.iter().copied().fold(f64::INFINITY, f64::min),
                high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            }
        };
        let points = (0..runs.first().map_or(0, Vec::len)).map(point).collect();
        Self { name: name.to_owned(), points }
    }
}

impl Figure {
    pub fn draw(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let least = all().map(|point| point.x).fold(f64::INFINITY, f64::min);
        let most = all().map(|point| point.x).fold(f64::NEG_INFINITY, f64::max);
        match self.logarithmic {
            true => self.draw_over(path, (least..most).log_scale()),
            false => self.draw_over(path, least..most),
        }
    }

    fn draw_over<X>(&self, path: &Path, x: X) -> Result<(), Box<dyn Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let area = SVGBackend::new(path, (800, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .caption(self.caption, ("sans-serif", 18))
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(x, 0.0..1.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 14))
            .x_desc(self.x)
            .y_desc(self.y)
            .draw()?;
        for (at, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let upper = line.points.iter().map(|point| (point.x, point.high));
            let lower = line.points.iter().rev().map(|point| (point.x, point.low));
            chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.2))])?;
            let style = ShapeStyle { color: colour.into(), filled: true, stroke_width: 2 };
            let series = LineSeries::new(line.points.iter().map(|point| (point.x, point.y)), style);
            let legend = move |(x, y)| {
                EmptyElement::at((x, y))
                    + PathElement::new(vec![(0, 0), (28, 0)], style)
                    + mark(at, (14, 0), style)
            };
            chart.draw_series(series)?.label(&line.name).legend(legend);
            let every = (line.points.len() / 12).max(1);
            let marked = line.points.iter().step_by(every);
            chart.draw_series(
                marked.map(|point| EmptyElement::at((point.x, point.y)) + mark(at, (0, 0), style)),
            )?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerMiddle)
            .label_font(("sans-serif", 14))
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE.mix(0.9))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// A disc, a triangle, a square or a rhomb.
fn mark(at: usize, (x, y): (i32, i32), style: ShapeStyle) -> Polygon<(i32, i32)> {
    let corners: &[(i32, i32)] = match at % 4 {
        0 => &[(-2, -4), (2, -4), (4, -2), (4, 2), (2, 4), (-2, 4), (-4, 2), (-4, -2)],
        1 => &[(0, -5), (5, 4), (-5, 4)],
        2 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        _ => &[(0, -5), (5, 0), (0, 5), (-5, 0)],
    };
    Polygon::new(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), style)
}
