//! A thin layer over plotters' SVG backend: shapes in pixels, and axes that map values to them.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Refusal;

pub type Point = (f64, f64);

pub const INK: RGBColor = RGBColor(34, 34, 34);
pub const MUTED: RGBColor = RGBColor(100, 100, 100);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Where a text is in relation to its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    Left,
    Centre,
    Right,
}

#[derive(Clone, Copy)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
}

pub struct Canvas<'s> {
    area: DrawingArea<SVGBackend<'s>, Shift>,
}

impl<'s> Canvas<'s> {
    /// A white canvas whose SVG goes into a string.
    pub fn new(svg: &'s mut String, width: f64, height: f64) -> Result<Self, Refusal> {
        let area = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        Ok(Self { area })
    }

    pub fn finish(self) -> Result<(), Refusal> {
        Ok(self.area.present()?)
    }

    pub fn line(&self, points: &[Point], colour: RGBColor, width: u32) -> Result<(), Refusal> {
        let points: Vec<_> = points.iter().copied().map(pixel).collect();
        Ok(self.area.draw(&PathElement::new(points, colour.stroke_width(width)))?)
    }

    /// A horizontal dashed line.
    pub fn dashed(&self, left: f64, right: f64, y: f64, colour: RGBColor) -> Result<(), Refusal> {
        let (dash, gap) = (6.0, 4.0);
        let mut x = left;
        while x < right {
            self.line(&[(x, y), ((x + dash).min(right), y)], colour, 2)?;
            x += dash + gap;
        }
        Ok(())
    }

    pub fn bar(&self, corners: [Point; 2], colour: RGBColor, alpha: f64) -> Result<(), Refusal> {
        let style = colour.mix(alpha).filled();
        Ok(self.area.draw(&Rectangle::new(corners.map(pixel), style))?)
    }

    pub fn marker(&self, marker: Marker, (x, y): Point, colour: RGBColor) -> Result<(), Refusal> {
        let corners = match marker {
            Marker::Circle => {
                return Ok(self.area.draw(&Circle::new(pixel((x, y)), 5, colour.filled()))?);
            }
            Marker::Square => {
                vec![(x - 4.0, y - 4.0), (x + 4.0, y - 4.0), (x + 4.0, y + 4.0), (x - 4.0, y + 4.0)]
            }
            Marker::Triangle => vec![(x, y - 6.0), (x + 6.0, y + 4.0), (x - 6.0, y + 4.0)],
            Marker::Diamond => vec![(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)],
        };
        let corners: Vec<_> = corners.into_iter().map(pixel).collect();
        Ok(self.area.draw(&Polygon::new(corners, colour.filled()))?)
    }

    /// A line of text, vertically centred on its point.
    pub fn text(
        &self,
        text: &str,
        at: Point,
        size: f64,
        colour: RGBColor,
        anchor: Anchor,
    ) -> Result<(), Refusal> {
        Ok(self.area.draw(&Text::new(
            text.to_owned(),
            pixel(at),
            style(size, colour, anchor, FontStyle::Normal),
        ))?)
    }

    pub fn heading(&self, text: &str, at: Point, size: f64) -> Result<(), Refusal> {
        let style = style(size, INK, Anchor::Left, FontStyle::Bold);
        Ok(self.area.draw(&Text::new(text.to_owned(), pixel(at), style))?)
    }

    /// A line of text from bottom to top, centred on its point.
    pub fn vertical_text(&self, text: &str, at: Point, size: f64, colour: RGBColor) -> Result<(), Refusal> {
        let style =
            style(size, colour, Anchor::Centre, FontStyle::Normal).transform(FontTransform::Rotate270);
        Ok(self.area.draw(&Text::new(text.to_owned(), pixel(at), style))?)
    }
}

/// Axes over a rectangle of the canvas.
pub struct Axes {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
    pub x: [f64; 2],
    pub y: [f64; 2],
}

impl Axes {
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub fn at(&self, (x, y): Point) -> Point {
        let part = |value: f64, [low, high]: [f64; 2]| (value - low) / (high - low);
        (self.left + self.width * part(x, self.x), self.bottom() - self.height * part(y, self.y))
    }

    /// Horizontal grid lines at multiples of `step` with their labels, and the base line.
    pub fn draw(&self, canvas: &Canvas<'_>, step: f64, label: &dyn Fn(f64) -> String) -> Result<(), Refusal> {
        let ticks = ((self.y[1] - self.y[0]) / step + 1e-9) as u32;
        for tick in 0..=ticks {
            let value = self.y[0] + f64::from(tick) * step;
            let (_, y) = self.at((0.0, value));
            let colour = if tick == 0 { INK } else { GRID };
            canvas.line(&[(self.left, y), (self.right(), y)], colour, 1)?;
            canvas.text(&label(value), (self.left - 8.0, y), 12.0, MUTED, Anchor::Right)?;
        }
        Ok(())
    }
}

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into at most `most` parts.
pub fn round_step(range: f64, most: f64) -> f64 {
    let power = 10.0_f64.powf((range / most).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| range / step <= most)
        .unwrap_or(range)
}

/// Roughly how wide a text is.
pub fn text_width(text: &str, size: f64) -> f64 {
    0.56 * size * text.chars().count() as f64
}

fn pixel((x, y): Point) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

fn style(size: f64, colour: RGBColor, anchor: Anchor, font: FontStyle) -> TextStyle<'static> {
    let horizontal = match anchor {
        Anchor::Left => HPos::Left,
        Anchor::Centre => HPos::Center,
        Anchor::Right => HPos::Right,
    };
    // The backend writes sizes divided by 1.24.
    let text: TextStyle<'static> = ("sans-serif", 1.24 * size, font).into();
    TextStyle { color: colour.to_backend_color(), ..text }.pos(Pos::new(horizontal, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!(round_step(9.0, 6.0), 2.0);
        assert_eq!(round_step(4800.0, 6.0), 1000.0);
        assert!((round_step(0.05, 6.0) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn axes_map_corners() {
        let axes = Axes { left: 10.0, top: 20.0, width: 100.0, height: 50.0, x: [1.0, 3.0], y: [0.0, 5.0] };
        assert_eq!((axes.at((1.0, 0.0)), axes.at((3.0, 5.0))), ((10.0, 70.0), (110.0, 20.0)));
    }
}
