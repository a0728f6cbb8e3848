//! Plots of one or several runs, as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::error::{Error, Result};

const SIZE: (u32, u32) = (900, 360);
const MARGIN: u32 = 12;
const LABELS: u32 = 64;
/// Of the y axis.
const MAX_LABELS: usize = 7;
/// One for each run, again from the first where there are more.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 98, 155),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 86, 86),
    RGBColor(230, 159, 0),
];

/// The colour of the `i`th run.
fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

/// The colour of the `i`th run, as CSS has it.
pub fn css_colour(i: usize) -> String {
    let RGBColor(r, g, b) = colour(i);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Lines over one pair of axes.
pub struct Plot {
    pub x: &'static str,
    pub y: &'static str,
    /// A line of each run; one without points draws nothing.
    pub lines: Vec<Vec<(f64, f64)>>,
}

impl Plot {
    /// Both axes even, from 0.
    pub fn linear(&self) -> Result<String> {
        let (x, y) = (self.most(|p| p.0), self.most(|p| p.1));
        self.draw(0.0..x, 0.0..y * 1.05, &even, &even)
    }

    /// Latencies, in microseconds, over quantiles, each axis by powers of ten. The x of a point is how many
    /// calls there are to one that took longer: 2 is the median, where it begins, 10 is p90, 1000 is p99.9.
    pub fn percentiles(&self) -> Result<String> {
        let (x, y) = (self.most(|p| p.0).max(10.0), self.most(|p| p.1).max(10.0));
        let least = self.points().map(|p| p.1).fold(y, f64::min).max(1.0);
        self.draw((2.0..x).log_scale(), (least..y * 1.2).log_scale(), &percentile, &micros)
    }

    /// Latencies, in microseconds by powers of ten, over an even axis.
    pub fn latencies(&self) -> Result<String> {
        let (x, y) = (self.most(|p| p.0), self.most(|p| p.1).max(10.0));
        let least = self.points().map(|p| p.1).fold(y, f64::min).max(1.0);
        self.draw(0.0..x, (least..y * 1.2).log_scale(), &even, &micros)
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.lines.iter().flatten()
    }

    /// The greatest of a coordinate; 1 if there is none.
    fn most(&self, of: fn(&(f64, f64)) -> f64) -> f64 {
        let most = self.points().map(of).fold(0.0, f64::max);
        if most > 0.0 { most } else { 1.0 }
    }

    fn draw<X, Y>(&self, x: X, y: Y, x_text: &dyn Fn(&f64) -> String, y_text: &dyn Fn(&f64) -> String) -> Result<String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut svg = String::new();
        self.draw_into(&mut svg, x, y, x_text, y_text)
            .map_err(|e| Error::internal(format!("the plot of {} cannot be drawn: {e}", self.y)))?;
        Ok(svg)
    }

    fn draw_into<X, Y>(
        &self,
        svg: &mut String,
        x: X,
        y: Y,
        x_text: &dyn Fn(&f64) -> String,
        y_text: &dyn Fn(&f64) -> String,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(LABELS / 2 + 12)
            .y_label_area_size(LABELS + 16)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 17))
            .x_label_formatter(x_text)
            .y_label_formatter(y_text)
            .y_labels(MAX_LABELS)
            .draw()?;
        for (i, line) in self.lines.iter().enumerate() {
            chart.draw_series(LineSeries::new(line.iter().copied(), colour(i).stroke_width(2)))?;
        }
        area.present()?;
        drop(chart);
        Ok(())
    }
}

fn even(value: &f64) -> String {
    match *value {
        v if v >= 1e9 => format!("{}G", v / 1e9),
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v if v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

fn micros(value: &f64) -> String {
    match *value {
        v if v >= 1e6 => format!("{} s", (v / 1e4).round() / 100.0),
        v if v >= 1e3 => format!("{} ms", (v / 10.0).round() / 100.0),
        v => format!("{v:.0} us"),
    }
}

fn percentile(calls: &f64) -> String {
    let percent = 100.0 - 100.0 / calls.max(1.0);
    let digits = (calls.log10().ceil() as usize).saturating_sub(2);
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_drawn_with_and_without_points() {
        let lines = vec![vec![(0.0, 1.0), (10.0, 1500.0)], Vec::new()];
        for lines in [lines, vec![Vec::new()]] {
            let plot = Plot { x: "seconds", y: "calls", lines };
            for svg in [plot.linear(), plot.percentiles(), plot.latencies()] {
                let svg = svg.unwrap();
                assert!(svg.starts_with("<svg") && svg.contains("calls"), "{svg}");
            }
        }
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0.0, 0.25, 12.0, 20_000.0, 3e6].map(|v| even(&v)), ["0", "0.25", "12", "20k", "3M"]);
        assert_eq!([1.0, 10.0, 100.0, 1000.0].map(|v| percentile(&v)), ["0 %", "90 %", "99 %", "99.9 %"]);
        assert_eq!([7.0, 1500.0, 2e6].map(|v| micros(&v)), ["7 us", "1.5 ms", "2 s"]);
    }
}
