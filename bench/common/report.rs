//! One form of report: Markdown tables on standard output, the same as JSON in a file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use serde_json::{Map, Value, json};

/// What one run of one bench found.
pub struct Report {
    bench: &'static str,
    facts: Vec<(String, String)>,
    tables: Vec<Table>,
}

impl Report {
    /// A report that begins with what the machine is.
    pub fn new(bench: &'static str, quick: bool) -> Self {
        let mut report = Self { bench, facts: Vec::new(), tables: Vec::new() };
        report.fact("machine", machine());
        if quick {
            report.fact("mode", "quick: the figures mean nothing");
        }
        report
    }

    /// Something that a reader needs to judge the figures.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.into(), value.into()));
    }

    pub fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub fn print(&self) {
        println!("\n# {}\n\n{}", self.bench, self.markdown());
    }

    /// Facts and tables, without a heading.
    fn markdown(&self) -> String {
        let facts: String = self.facts.iter().map(|(name, value)| format!("- {name}: {value}\n")).collect();
        let table = |table: &Table| format!("\n{}\n\n{}\n", table.title, table.render());
        facts + &self.tables.iter().map(table).collect::<String>()
    }

    /// Put facts and tables into a document, in place of what is between the marks of this bench.
    pub fn write_into(&self, path: &Path) -> Result<()> {
        let (begin, end) = (format!("<!-- begin: {} -->", self.bench), format!("<!-- end: {} -->", self.bench));
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let marks = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) = marks.with_context(|| format!("no {begin} and {end} in {}", path.display()))?;
        let text = format!("{before}{begin}\n{}\n{end}{after}", self.markdown());
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn write_json(&self, path: &Path) -> Result<()> {
        let facts: Map<_, _> = self.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let tables: Vec<_> = self.tables.iter().map(Table::to_json).collect();
        let document = json!({ "bench": self.bench, "facts": facts, "tables": tables });
        let text = serde_json::to_string_pretty(&document)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A table with a title. All rows have the columns of the first.
pub struct Table {
    title: String,
    rows: Vec<Vec<(&'static str, Cell)>>,
}

impl Table {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    pub fn row<const N: usize>(&mut self, cells: [(&'static str, Cell); N]) {
        self.rows.push(cells.into());
    }

    /// A row that sets a figure beside what is to be reached, if anything is.
    pub fn finding(&mut self, what: impl Into<String>, figure: impl Into<String>, reach: Option<(String, bool)>) {
        let (reach, reached) = match reach {
            Some((reach, reached)) => (Cell::text(reach), Cell::verdict(reached)),
            None => (Cell::none(), Cell::none()),
        };
        self.row([("what", Cell::text(what)), ("figure", Cell::text(figure)), ("reach", reach), ("reached", reached)]);
    }

    fn render(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(ASCII_MARKDOWN);
        if let Some(first) = self.rows.first() {
            table.set_header(first.iter().map(|(column, _)| *column));
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|(_, cell)| cell.text.as_str()));
        }
        table
    }

    fn to_json(&self) -> Value {
        let object = |row: &Vec<(&'static str, Cell)>| -> Map<String, Value> {
            row.iter().map(|(column, cell)| ((*column).to_owned(), cell.value.clone())).collect()
        };
        json!({ "title": self.title, "rows": self.rows.iter().map(object).collect::<Vec<_>>() })
    }
}

/// A figure as people and as programs read it.
pub struct Cell {
    text: String,
    value: Value,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { value: json!(text), text }
    }

    pub fn count(n: u64) -> Self {
        Self { text: grouped(n), value: json!(n) }
    }

    pub fn number(value: f64, decimals: usize) -> Self {
        Self { text: format!("{value:.decimals$}"), value: json!(value) }
    }

    /// A median with the least and the greatest of its rounds.
    pub fn spread(spread: Spread, decimals: usize) -> Self {
        let Spread { min, median, max } = spread;
        let text = format!("{median:.decimals$} ({min:.decimals$}..{max:.decimals$})");
        Self { text, value: json!({ "min": min, "median": median, "max": max }) }
    }

    pub fn verdict(reached: bool) -> Self {
        Self { text: if reached { "yes" } else { "no" }.into(), value: json!(reached) }
    }

    /// Nothing to say.
    pub fn none() -> Self {
        Self { text: "-".into(), value: Value::Null }
    }
}

/// Least, middle and greatest of several measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        assert!(!values.is_empty(), "a spread of nothing");
        values.sort_by(f64::total_cmp);
        Self { min: values[0], median: quantile(&values, 0.5), max: values[values.len() - 1] }
    }
}

/// The `q`-quantile of sorted values: the middle of both neighbours for a median of an even number.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

/// 1234567 as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    parts.join(",")
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field_of("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let memory = field_of("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, {memory} memory, Linux {}", kernel.trim())
}

fn field_of(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}
