//! Goal: the configuration, the files that ship with it and its documentation say the same.
//! Method: take the keys from `Config::default()` itself and look for each of them in the texts.

use mimeo::config::{Config, Severity};

const DEFAULT: &str = include_str!("../config/default.toml");
const EXAMPLE: &str = include_str!("../config/example-lab.toml");
const UNIT: &str = include_str!("../config/mimeo.service");
const DOCS: &str = include_str!("../docs/configuration.md");

/// (section, key) of every key.
fn keys() -> Vec<(String, String)> {
    let table = toml::Table::try_from(Config::default()).expect("a configuration is a table");
    let sections = table.iter().map(|(name, section)| (name, section.as_table().expect("a section is a table")));
    sections.flat_map(|(name, section)| section.keys().map(|key| (name.clone(), key.clone()))).collect()
}

/// The lines of section `name` of `text`.
fn section<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("[{name}]");
    text.lines().skip_while(|line| **line != head).skip(1).take_while(|line| !line.starts_with('[')).collect()
}

#[test]
fn the_default_file_is_the_default() {
    assert_eq!(Config::parse(DEFAULT, "default.toml").unwrap(), Config::default());
}

#[test]
fn the_default_file_has_every_key_with_a_comment() {
    for (name, key) in keys() {
        let lines = section(DEFAULT, &name);
        let at = lines.iter().position(|line| line.starts_with(&format!("{key} = ")));
        let at = at.unwrap_or_else(|| panic!("{name}.{key} is not in config/default.toml"));
        // Keys that belong together share the comment before the first of them.
        let before = lines[..at].iter().rev().take_while(|line| !line.is_empty());
        assert!(before.into_iter().any(|line| line.starts_with("# ")), "{name}.{key} has no comment");
    }
}

#[test]
fn the_documentation_has_every_key_and_its_default() {
    for (name, key) in keys() {
        let lines = section(DEFAULT, &name);
        let line = lines.iter().find(|line| line.starts_with(&format!("{key} = "))).expect("tested above");
        let value = line.split_once(" = ").expect("found by it").1;
        let row = format!("| `{name}.{key}` | `{value}` |");
        assert!(DOCS.contains(&row), "docs/configuration.md lacks the row {row}");
    }
}

#[test]
fn the_documentation_has_no_other_keys() {
    let known: Vec<String> = keys().into_iter().map(|(name, key)| format!("{name}.{key}")).collect();
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(key, _)| key);
    for key in rows.filter(|key| key.contains('.')) {
        assert!(known.iter().any(|k| k == key), "docs/configuration.md has {key}, which is no key");
    }
}

#[test]
fn the_example_has_nothing_to_complain_about() {
    assert_eq!(Config::parse(EXAMPLE, "example-lab.toml").unwrap().findings(), []);
}

#[test]
fn the_unit_waits_longer_than_the_drain() {
    let wait = UNIT.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("a timeout");
    assert!(wait.parse::<u64>().unwrap() > Config::default().nfs.drain_secs + 1);
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    for text in ["[nfs]\nlissten = \"127.0.0.1:1\"", "[nsf]\nworkers = 1", "threads = 1"] {
        let error = Config::parse(text, "lab.toml").unwrap_err().to_string();
        let wrong =
            if text.contains("nsf") { "nsf" } else { text.trim_start_matches("[nfs]\n").split(' ').next().unwrap() };
        assert!(error.contains("lab.toml") && error.contains(wrong), "{error}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_by_name() {
    for (text, key) in [("[nfs]\nworkers = \"two\"", "workers"), ("[exports]\nsquash = \"some\"", "squash")] {
        let error = Config::parse(text, "lab.toml").unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn severities_are_told_apart() {
    let config = Config::parse("[nfs]\nlisten = [\"0.0.0.0:2049\"]\nworkers = 5000", "lab.toml").unwrap();
    let severities: Vec<_> = config.findings().iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Warning]);
}
