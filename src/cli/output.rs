//! What goes to standard output: tables for people, or one JSON document.

use std::io::{BufWriter, ErrorKind, Stdout, Write};

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use humansize::{BINARY, format_size};
use serde::Serialize;

use crate::admin::types::LabelMap;

/// Standard output. Both forms are buffered; [`finish`](Self::finish) tells whether all of it went.
pub(super) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(std::io::stdout()) }
    }

    pub fn json(&self) -> bool {
        self.json
    }

    /// `document` as JSON, or what `text` makes of it for people.
    pub fn show<T: Serialize>(&mut self, document: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, document)?;
            return self.raw("\n");
        }
        let text = text(document);
        if text.is_empty() { Ok(()) } else { self.raw(text.trim_end()).and_then(|()| self.raw("\n")) }
    }

    /// A piece of the document, as it is.
    pub fn raw(&mut self, text: &str) -> Result<()> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    pub fn finish(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// Whether writing failed because the reader is gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &std::io::Error| e.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(broken)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|e| e.io_error_kind() == Some(ErrorKind::BrokenPipe))
    })
}

/// Columns without lines around them. `header` names them; one that begins with `>` holds figures.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().map(|name| name.trim_start_matches('>')));
    table.add_rows(rows);
    for (i, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(i) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

/// `key: value` lines, the values below each other.
pub(super) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len() + 1).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{:width$}  {value}", format!("{key}:")).trim_end().to_owned();
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `1.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

/// `k=v,k=v`.
pub(super) fn labels(labels: &LabelMap) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Those that say something, with blanks between.
pub(super) fn words(words: &[String]) -> String {
    words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// An RFC 3339 time in the time zone of this machine, to the second.
pub(super) fn local(time: &str) -> String {
    let zoned = time.parse::<jiff::Timestamp>().map(|t| t.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(|_| time.to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `1 clone`, `2 clones`.
pub(super) fn count(n: u64, noun: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "100".to_owned()]];
        assert_eq!(table(&["NAME", ">CLONES"], rows), "NAME  CLONES\na          1\nlong     100");
    }

    #[test]
    fn fields_align() {
        let text = fields(&[("name", "a".into()), ("created", "b".into()), ("tags", String::new())]);
        assert_eq!(text, "name:     a\ncreated:  b\ntags:");
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1, "clone"), "1 clone");
        assert_eq!(count(0, "clone"), "0 clones");
        assert_eq!(size(1536), "1.50 KiB");
    }
}
