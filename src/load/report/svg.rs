//! Pure. Line charts as SVG: axes, ticks, lines. Colours and fonts are the page's, by class.
//!
//! ```text
//!      ├ MARGIN_LEFT ┤                            A chart has one size and the page scales it to a column, so that
//!   ▲  high ┌────────────────────────┐            letters are as large on a telephone as on a desk.
//!   │       │  lines, clipped to it  │
//!   ▼   low └────────────────────────┘
//!           low  ── x ──▶         high
//! ```

use std::fmt::Write;

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 230.0;
const MARGIN_LEFT: f64 = 56.0;
const MARGIN_RIGHT: f64 = 22.0;
const MARGIN_TOP: f64 = 10.0;
const MARGIN_BOTTOM: f64 = 36.0;

/// About as many ticks as fit beside each other.
const TICKS: f64 = 5.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// `low` < `high`, and `low` > 0 on a logarithmic one.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    scale: Scale,
    low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

pub(super) struct Line {
    /// Class of the page's style sheet: its colour and dashes.
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) struct Chart {
    /// For those who cannot see it.
    pub(super) told: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

impl Axis {
    /// From 0 to a round number above `most`.
    pub(super) fn linear(label: &'static str, most: f64) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_step(most / TICKS);
        let count = (most / step).ceil();
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step);
        Axis {
            label,
            scale: Scale::Linear,
            low: 0.0,
            high: count * step,
            ticks: ticks.map(|at| (at, number(at))).collect(),
        }
    }

    /// Whole decades around what lies between.
    pub(super) fn log(label: &'static str, least: f64, most: f64) -> Axis {
        let low = least.log10().floor();
        let high = most.log10().ceil().max(low + 1.0);
        let decades = (high - low) as i32;
        let ticks = (0..=decades).map(|decade| 10_f64.powi(low as i32 + decade));
        Axis {
            label,
            scale: Scale::Log,
            low: 10_f64.powf(low),
            high: 10_f64.powf(high),
            ticks: ticks.map(|at| (at, number(at))).collect(),
        }
    }

    /// 0 at the low end, 1 at the high one.
    fn place(&self, at: f64) -> f64 {
        let of = |number: f64| match self.scale {
            Scale::Linear => number,
            Scale::Log => number.max(self.low).log10(),
        };
        ((of(at) - of(self.low)) / (of(self.high) - of(self.low))).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    // The sum of rounding errors must not push a step of 2 to 5.
    let found = steps.into_iter().find(|step| *step >= rough * 0.999_999);
    found.unwrap_or(10.0 * power)
}

/// `0.05`, `20`, `1.5k`, `2M`.
fn number(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => (n, ""),
    };
    let digits = format!("{scaled:.6}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{unit}")
}

impl Chart {
    pub(super) fn draw(&self) -> String {
        let mut out = String::new();
        put(
            &mut out,
            format_args!(
                "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
                self.told
            ),
        );
        let (left, right) = (MARGIN_LEFT, WIDTH - MARGIN_RIGHT);
        let (top, bottom) = (MARGIN_TOP, HEIGHT - MARGIN_BOTTOM);
        for (at, text) in &self.y.ticks {
            let y = self.y_of(*at);
            put(
                &mut out,
                format_args!(
                    "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>\
                     <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                    left - 6.0,
                    y + 4.0
                ),
            );
        }
        for (at, text) in &self.x.ticks {
            let x = self.x_of(*at);
            put(
                &mut out,
                format_args!(
                    "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom}\"/>\
                     <text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text>",
                    bottom + 15.0
                ),
            );
        }
        put(
            &mut out,
            format_args!(
                "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
                 <text class=\"label\" transform=\"translate(11 {:.1}) rotate(-90)\">{}</text>",
                f64::midpoint(left, right),
                HEIGHT - 5.0,
                self.x.label,
                f64::midpoint(top, bottom),
                self.y.label
            ),
        );
        for line in &self.lines {
            self.draw_line(line, &mut out);
        }
        out.push_str("</svg>");
        out
    }

    fn draw_line(&self, line: &Line, out: &mut String) {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", self.x_of(*x), self.y_of(*y)))
            .collect();
        match &points[..] {
            [] => {}
            // A line of one point would not be seen.
            [only] => {
                let (x, y) = only.split_once(',').expect("made above");
                let class = line.class;
                put(
                    out,
                    format_args!("<circle class=\"dot {class}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>"),
                );
            }
            points => put(
                out,
                format_args!(
                    "<polyline class=\"line {}\" points=\"{}\"/>",
                    line.class,
                    points.join(" ")
                ),
            ),
        }
    }

    fn x_of(&self, at: f64) -> f64 {
        MARGIN_LEFT + self.x.place(at) * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)
    }

    fn y_of(&self, at: f64) -> f64 {
        HEIGHT - MARGIN_BOTTOM - self.y.place(at) * (HEIGHT - MARGIN_TOP - MARGIN_BOTTOM)
    }
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| &**text).collect()
    }

    #[test]
    fn ticks_are_round_and_enclose_what_is_shown() {
        assert_eq!(
            ticks(&Axis::linear("", 48_210.0)),
            ["0", "10k", "20k", "30k", "40k", "50k"]
        );
        assert_eq!(
            ticks(&Axis::linear("", 1.0)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(ticks(&Axis::linear("", 0.0)).len(), 6);
        assert_eq!(
            ticks(&Axis::log("", 0.08, 310.0)),
            ["0.01", "0.1", "1", "10", "100", "1k"]
        );
        assert_eq!(ticks(&Axis::log("", 1.0, 1.0)), ["1", "10"]);
    }

    #[test]
    fn lines_lie_where_the_figures_say() {
        let chart = Chart {
            told: "a chart".to_owned(),
            x: Axis::linear("s", 10.0),
            y: Axis::log("ms", 1.0, 100.0),
            lines: vec![Line {
                class: "a",
                points: vec![(0.0, 1.0), (5.0, 10.0), (10.0, 100.0), (10.0, 1e9)],
            }],
        };
        let svg = chart.draw();
        let middle = format!("{:.1},{:.1}", (56.0 + 378.0) / 2.0, (10.0 + 194.0) / 2.0);
        let wanted = format!("points=\"56.0,194.0 {middle} 378.0,10.0 378.0,10.0\"");
        assert!(svg.contains(&wanted), "{svg}");
    }
}
