//! The view while a storm runs, on standard error: drawn on a terminal, else a line now and then.

use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::super::output::size;
use crate::storm::{Tick, grouped, millis};

/// Seconds between two lines where there is no terminal.
const LINE_EVERY: u32 = 5;
/// Seconds that the curve of the rate shows.
const CURVE: usize = 60;
const BOOTED: &str = "{prefix} {wide_bar} {pos}/{len}";
const LINE: &str = "{prefix} {msg}";
/// Blocks from an eighth to a whole.
const LEVELS: [char; 8] =
    ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];

pub struct Live {
    /// Nothing where there is no terminal.
    view: Option<View>,
    ticks: u32,
}

struct View {
    all: MultiProgress,
    booted: ProgressBar,
    rate: ProgressBar,
    latency: ProgressBar,
    errors: ProgressBar,
    curve: VecDeque<f64>,
}

impl Live {
    pub fn new(clients: u32) -> Self {
        Self { view: stderr().is_terminal().then(|| View::new(clients)), ticks: 0 }
    }

    pub fn show(&mut self, tick: &Tick) {
        self.ticks += 1;
        match &mut self.view {
            Some(view) => view.show(tick),
            None if self.ticks.is_multiple_of(LINE_EVERY) => eprintln!("{}", line(tick)),
            None => {}
        }
    }

    pub fn finish(self) {
        if let Some(view) = self.view {
            // It would only repeat what is told next; if it cannot be cleared, it stays.
            let _ = view.all.clear();
        }
    }
}

impl View {
    fn new(clients: u32) -> Self {
        let all = MultiProgress::new();
        let add = |prefix: &'static str, template| {
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            all.add(ProgressBar::new(u64::from(clients)).with_style(style.progress_chars("=> ")).with_prefix(prefix))
        };
        Self {
            booted: add("booted ", BOOTED),
            rate: add("rate   ", LINE),
            latency: add("latency", LINE),
            errors: add("errors ", LINE),
            curve: VecDeque::with_capacity(CURVE),
            all,
        }
    }

    fn show(&mut self, tick: &Tick) {
        if self.curve.len() == CURVE {
            self.curve.pop_front();
        }
        self.curve.push_back(tick.operations_per_sec);
        self.booted.set_position(tick.booted);
        self.rate.set_message(format!("{}  {}", rate(tick), curve(self.curve.make_contiguous())));
        self.latency.set_message(latency(tick));
        let errors = format!("{} in this second, {} clients gave up", tick.errors, tick.failed);
        self.errors.set_message(errors);
    }
}

/// All of a second in one line.
fn line(tick: &Tick) -> String {
    let Tick { at_secs, booted, failed, errors, .. } = tick;
    format!("{at_secs:.0} s: {booted} booted, {failed} gave up; {}; {}; {errors} errors", rate(tick), latency(tick))
}

fn rate(tick: &Tick) -> String {
    let bytes = size((tick.bytes_read_per_sec + tick.bytes_written_per_sec) as u64);
    format!("{} calls/s, {bytes}/s", grouped(tick.operations_per_sec))
}

fn latency(tick: &Tick) -> String {
    let [p50, p99, p999] = [tick.p50_micros, tick.p99_micros, tick.p999_micros].map(millis);
    format!("p50 {p50}, p99 {p99}, p99.9 {p999}")
}

/// Values as blocks, the greatest one whole.
fn curve(values: &[f64]) -> String {
    let most = values.iter().copied().fold(1.0, f64::max);
    let level = |value: &f64| LEVELS[((value / most * 8.0).ceil() as usize).clamp(1, 8) - 1];
    values.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_a_second_was() {
        let tick = Tick { at_secs: 5.0, operations_per_sec: 1234.0, p99_micros: 1500, booted: 7, ..Tick::default() };
        assert_eq!(
            line(&tick),
            "5 s: 7 booted, 0 gave up; 1,234 calls/s, 0 B/s; p50 0.00 ms, p99 1.50 ms, p99.9 0.00 ms; 0 errors"
        );
    }

    #[test]
    fn a_curve_rises_to_a_whole_block() {
        assert_eq!(curve(&[0.0, 50.0, 100.0]), "\u{2581}\u{2584}\u{2588}");
    }
}
