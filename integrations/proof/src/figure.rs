//! Lines and bars of several runs, with the range between them, as SVG.

use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

pub struct Figure {
    pub caption: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

#[derive(Clone, Copy)]
pub struct Axis {
    name: &'static str,
    /// Of the lines, if there is none.
    range: Option<(f64, f64)>,
    logarithmic: bool,
}

/// Means of runs, and their range.
pub struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

#[derive(Clone)]
pub struct Point {
    pub x: f64,
    /// The mean of the values.
    pub y: f64,
    pub low: f64,
    pub high: f64,
    /// Of each run.
    pub values: Vec<f64>,
}

/// Bars from 0, one below the other.
pub struct Bars {
    pub caption: String,
    pub x: &'static str,
    pub bars: Vec<Bar>,
}

/// Values of runs of one thing.
pub struct Bar {
    pub name: String,
    /// Those of one group have one colour.
    pub group: usize,
    pub values: Vec<f64>,
}

/// Okabe and Ito's, which are told apart without colour vision; lines have marks of their own besides.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
const FONT: &str = "sans-serif";
const WIDTH: u32 = 860;
/// For the names of lines.
const NAMES: u32 = 235;

impl Axis {
    /// From 0 to 1.
    pub fn parts(name: &'static str) -> Self {
        Self { name, range: Some((0.0, 1.0)), logarithmic: false }
    }

    pub fn linear(name: &'static str) -> Self {
        Self { name, range: None, logarithmic: false }
    }

    pub fn logarithmic(name: &'static str) -> Self {
        Self { name, range: None, logarithmic: true }
    }

    fn over(self, values: impl Iterator<Item = f64>) -> Range<f64> {
        let (low, high) = self.range.unwrap_or_else(|| {
            values
                .filter(|value| value.is_finite())
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        });
        low..if high > low { high } else { low + 1.0 }
    }
}

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
                values,
            }
        };
        let points = (0..runs.first().map_or(0, Vec::len)).map(point).collect();
        Self { name: name.to_owned(), points }
    }

    /// The mean at an x.
    pub fn at(&self, x: f64) -> f64 {
        self.points.iter().find(|point| point.x == x).map_or(f64::NAN, |point| point.y)
    }

    /// The values at an x.
    pub fn values_at(&self, x: f64) -> &[f64] {
        self.points.iter().find(|point| point.x == x).map_or(&[], |point| &point.values)
    }
}

/// Figures one below the other.
pub fn draw(path: &Path, figures: &[Figure]) -> Result<()> {
    let area = blank(path, 420 * figures.len() as u32)?;
    for (figure, area) in figures.iter().zip(area.split_evenly((figures.len(), 1))) {
        figure.draw(&area)?;
    }
    area.present()?;
    Ok(())
}

impl Figure {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let x = self.x.over(all().map(|point| point.x));
        let y = self.y.over(all().flat_map(|point| [point.low, point.high]));
        // Of few powers of ten, those of two are told.
        let scale = |of: Range<f64>| {
            let base = if of.end / of.start < 50.0 { 2.0 } else { 10.0 };
            of.log_scale().base(base)
        };
        match (self.x.logarithmic, self.y.logarithmic) {
            (false, false) => self.draw_over(area, x, y),
            (true, false) => self.draw_over(area, scale(x), y),
            (false, true) => self.draw_over(area, x, scale(y)),
            (true, true) => self.draw_over(area, scale(x), scale(y)),
        }
    }

    fn draw_over<X, Y>(&self, area: &Area<'_>, x: X, y: Y) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        // Names stand beside the lines, where they hide none.
        let (left, right) = area.split_horizontally(WIDTH - NAMES);
        let mut chart = ChartBuilder::on(&left)
            .margin(16)
            .caption(&self.caption, (FONT, 17))
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .label_style((FONT, 14))
            .x_label_formatter(&|x| format!("{x}"))
            .y_labels(8)
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .draw()?;
        for (at, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let upper = line.points.iter().map(|point| (point.x, point.high));
            let lower = line.points.iter().rev().map(|point| (point.x, point.low));
            chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.2))])?;
            let style = ShapeStyle { color: colour.into(), filled: true, stroke_width: 2 };
            chart.draw_series(LineSeries::new(line.points.iter().map(|point| (point.x, point.y)), style))?;
            let every = (line.points.len() / 12).max(1);
            let marked = line.points.iter().step_by(every);
            chart.draw_series(
                marked.map(|point| EmptyElement::at((point.x, point.y)) + mark(at, (0, 0), style)),
            )?;
            let y = 60 + 24 * at as i32;
            right.draw(&PathElement::new(vec![(0, y), (28, y)], style))?;
            right.draw(&mark(at, (14, y), style))?;
            let name = (FONT, 13).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            right.draw(&Text::new(line.name.clone(), (36, y), name))?;
        }
        Ok(())
    }
}

impl Bars {
    pub fn draw(&self, path: &Path) -> Result<()> {
        const ROW: i32 = 26;
        const LEFT: i32 = 330;
        const NUMBERS: i32 = 90;
        let rows = self.bars.len() as i32;
        let area = blank(path, (rows * ROW + 84) as u32)?;
        let centred = (FONT, 18).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(self.caption.clone(), (WIDTH as i32 / 2, 12), centred))?;
        let most =
            self.bars.iter().flat_map(|bar| bar.values.iter().copied()).fold(f64::MIN_POSITIVE, f64::max);
        let long = |value: f64| (value / most * f64::from(WIDTH as i32 - LEFT - NUMBERS)) as i32;
        let small = (FONT, 14).into_font().color(&BLACK);
        for (row, bar) in self.bars.iter().enumerate() {
            let middle = 58 + row as i32 * ROW;
            let line = Line::of_runs("", bar.values.iter().map(|&value| vec![(0.0, value)]));
            let Some(&Point { y: mean, low, high, .. }) = line.points.first() else { continue };
            let name = small.pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(bar.name.clone(), (LEFT - 8, middle), name))?;
            let colour = COLOURS[bar.group % COLOURS.len()];
            area.draw(&Rectangle::new(
                [(LEFT, middle - 8), (LEFT + long(mean), middle + 8)],
                colour.filled(),
            ))?;
            let range = [(LEFT + long(low), middle), (LEFT + long(high), middle)];
            area.draw(&PathElement::new(range, BLACK.stroke_width(2)))?;
            let number = small.pos(Pos::new(HPos::Left, VPos::Center));
            let digits = if most < 10.0 { 3 } else { 1 };
            area.draw(&Text::new(format!("{mean:.digits$}"), (LEFT + long(high) + 8, middle), number))?;
        }
        let below = small.pos(Pos::new(HPos::Left, VPos::Bottom));
        area.draw(&Text::new(self.x, (LEFT, rows * ROW + 76), below))?;
        area.present()?;
        Ok(())
    }
}

fn blank(path: &Path, height: u32) -> Result<Area<'_>> {
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

/// A disc, a triangle, a square, a rhomb, a triangle on its head, a bar or an hourglass.
fn mark(at: usize, (x, y): (i32, i32), style: ShapeStyle) -> Polygon<(i32, i32)> {
    let corners: &[(i32, i32)] = match at % COLOURS.len() {
        0 => &[(-2, -4), (2, -4), (4, -2), (4, 2), (2, 4), (-2, 4), (-4, 2), (-4, -2)],
        1 => &[(0, -5), (5, 4), (-5, 4)],
        2 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
        3 => &[(0, -5), (5, 0), (0, 5), (-5, 0)],
        4 => &[(0, 5), (5, -4), (-5, -4)],
        5 => &[(-2, -6), (2, -6), (2, 6), (-2, 6)],
        _ => &[(-4, -5), (4, -5), (-4, 5), (4, 5)],
    };
    Polygon::new(corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect::<Vec<_>>(), style)
}
