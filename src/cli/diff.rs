//! Differences as they come: a line for each path, or one document; the totals at the end.

use anyhow::Result;

use super::client::{Client, broken_off, refused};
use super::output::{Output, count, size};
use crate::admin::types::{DiffEntry, DiffLine, DiffTotals};

/// Show the differences that `path` answers.
pub(super) async fn show(client: &mut Client, output: &mut Output, path: &str) -> Result<()> {
    let mut lines = client.get_lines(path).await?;
    let mut first = true;
    if output.json() {
        output.raw("{\"changes\":[")?;
    }
    while let Some(line) = lines.next().await? {
        match line {
            DiffLine::Entry(entry) => show_entry(output, &entry, std::mem::take(&mut first))?,
            DiffLine::Done(totals) => return show_totals(output, &totals),
            DiffLine::Error(info) => return Err(refused(info)),
        }
    }
    Err(broken_off())
}

fn show_entry(output: &mut Output, entry: &DiffEntry, first: bool) -> Result<()> {
    if output.json() {
        let comma = if first { "" } else { "," };
        return output.raw(&format!("{comma}{}", serde_json::to_string(entry)?));
    }
    output.raw(&format!("{}\n", text(entry)))
}

/// `M   1.00 KiB ->   2.00 KiB  data,attributes  etc/motd`: the path last, whatever is in it.
fn text(entry: &DiffEntry) -> String {
    let DiffEntry { change, what, bytes_old, bytes_new, bytes_private, path } = entry;
    let old = if change == "A" { "-".to_owned() } else { size(*bytes_old) };
    let new = if change == "D" { "-".to_owned() } else { size(*bytes_new) };
    let private = bytes_private.map_or(String::new(), |bytes| format!("  {:>10} private", size(bytes)));
    format!("{change} {old:>10} -> {new:>10}{private}  {:<15}  {path}", what.join(","))
}

fn show_totals(output: &mut Output, totals: &DiffTotals) -> Result<()> {
    if output.json() {
        // The document goes on behind the changes with the members of the totals.
        let members = serde_json::to_string(totals)?;
        return output.raw(&format!("],{}\n", members.trim_start_matches('{')));
    }
    let private = totals.bytes_private.map_or(String::new(), |bytes| format!(", {} private", size(bytes)));
    let paths = [(totals.paths_added, "added"), (totals.paths_removed, "removed"), (totals.paths_changed, "changed")];
    let paths = paths.map(|(n, how)| format!("{} {how}", count(n, "path"))).join(", ");
    output.raw(&format!("{paths}; {} -> {}{private}\n", size(totals.bytes_old), size(totals.bytes_new)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_its_path() {
        let mut entry = DiffEntry {
            change: "M".into(),
            what: vec!["data".into(), "attributes".into()],
            bytes_old: 9,
            bytes_new: 2048,
            bytes_private: None,
            path: "etc/a b".into(),
        };
        assert_eq!(text(&entry), "M        9 B ->      2 KiB  data,attributes  etc/a b");
        (entry.change, entry.bytes_private, entry.what) = ("A".into(), Some(2048), Vec::new());
        assert_eq!(text(&entry), format!("A          - ->      2 KiB       2 KiB private  {:15}  etc/a b", ""));
    }
}
