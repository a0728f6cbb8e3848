//! Goal: the rules of docs/style.md hold, so that nobody has to watch over them in a review.
//! Method: read the repository's own files as text, with strings and comments blanked where code is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/source.rs"]
mod source;

use source::Source;

const MAX_FILE_LINES: usize = 900;
const MAX_FN_LINES: usize = 70;

/// The layers, lowest first. A module imports from lower layers and from itself; modules of one layer do
/// not know each other, except those of the first.
const LAYERS: &[&[&str]] = &[
    &["error", "config", "metrics", "env"],
    &["meta", "audit", "trace"],
    &["chunk"],
    &["manifest"],
    &["overlay"],
    &["image"],
    &["vfs", "maintain"],
    &["nfs", "admin"],
    &["daemon", "storm"],
    &["cli"],
];

/// What a module must not name although it lies lower: the front end knows files, not how they are stored; the storm
/// tool is a client of any server.
const HIDDEN: &[(&str, &[&str])] = &[
    ("nfs", &["meta", "chunk", "manifest", "overlay", "image"]),
    ("storm", &["meta", "audit", "chunk", "manifest", "overlay", "image", "vfs", "maintain", "admin", "config"]),
];

/// Crates that stay behind one module.
const OWNED_CRATES: &[(&str, &str)] = &[("rocksdb", "meta"), ("nfsserve", "nfs")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under `folder` with one of these extensions, sorted, as paths relative to the repository.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(dir) = folders.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for path in entries.map(|e| e.expect("a readable folder").path()) {
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)) {
                found.push(path.strip_prefix(root()).expect("under the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(root().join(path)).expect("a readable file")).into_owned()
}

fn sources(folders: &[&str]) -> Vec<(PathBuf, Source)> {
    let paths = folders.iter().flat_map(|f| files(f, &["rs"]));
    paths.map(|p| (p.clone(), Source::parse(&read(&p)))).collect()
}

#[track_caller]
fn assert_none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

/// The module of the library that a file of `src/` belongs to.
fn module_of(path: &Path) -> Option<String> {
    let first = path.components().nth(1)?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Why `module` may not import `other`, if so.
fn import_breach(module: &str, other: &str) -> Option<String> {
    if module == other {
        return None;
    }
    let Some(theirs) = layer_of(other) else {
        return Some(format!("'{other}' has no layer: add it to LAYERS"));
    };
    let ours = layer_of(module).expect("checked by the caller");
    if theirs > ours || (theirs == ours && ours != 0) {
        return Some(format!("{module} imports {other}, which is not below it"));
    }
    let hidden = HIDDEN.iter().any(|(m, others)| *m == module && others.contains(&other));
    hidden.then(|| format!("{module} must not know {other}"))
}

#[test]
fn modules_import_only_from_below() {
    let mut breaches = Vec::new();
    for (path, source) in sources(&["src"]) {
        let Some(module) = module_of(&path) else { continue };
        if layer_of(&module).is_none() {
            breaches.push(format!("{}: module '{module}' has no layer: add it to LAYERS", path.display()));
            continue;
        }
        for (line, other) in source.crate_paths() {
            if let Some(why) = import_breach(&module, &other) {
                breaches.push(format!("{}:{line}: {why}", path.display()));
            }
        }
        for (name, owner) in OWNED_CRATES {
            if module != *owner && source.names_crate(name) {
                breaches.push(format!("{}: {name} stays inside {owner}", path.display()));
            }
        }
    }
    assert_none("the order of the layers", breaches);
}

#[test]
fn files_and_functions_are_short() {
    let mut breaches = Vec::new();
    for path in ["src", "tests", "bench"].iter().flat_map(|f| files(f, &["rs", "sh", "py"])) {
        let lines = read(&path).lines().count();
        if lines > MAX_FILE_LINES {
            breaches.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES}", path.display()));
        }
    }
    for (path, source) in sources(&["src", "tests", "bench"]) {
        for f in source.functions().iter().filter(|f| f.lines > MAX_FN_LINES) {
            breaches.push(format!(
                "{}:{}: fn {} has {} lines, at most {MAX_FN_LINES}",
                path.display(),
                f.line,
                f.name,
                f.lines
            ));
        }
    }
    assert_none("short files and functions", breaches);
}

#[test]
fn sources_are_ascii() {
    let extensions = &["rs", "sh", "py", "toml", "yml", "service", "Dockerfile"];
    let mut breaches = Vec::new();
    for path in ["src", "tests", "bench", "config", "docker"].iter().flat_map(|f| files(f, extensions)) {
        for (n, line) in read(&path).lines().enumerate().filter(|(_, l)| !l.is_ascii()) {
            breaches.push(format!("{}:{}: {}", path.display(), n + 1, line.escape_default()));
        }
    }
    assert_none("ASCII sources", breaches);
}

/// The one file that may: it says why.
const UNSAFE: &str = "src/env/memory.rs";

#[test]
fn no_shortcuts_in_the_library() {
    let shortcuts = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];
    let mut breaches = Vec::new();
    let all = sources(&["src"]);
    let test_files: BTreeSet<PathBuf> = all.iter().flat_map(|(path, s)| s.test_files(path)).collect();
    for (path, source) in &all {
        let in_test_file =
            path.ancestors().any(|a| test_files.contains(a) || test_files.contains(&a.with_extension("rs")));
        for (n, line) in source.code_lines() {
            if !in_test_file && !source.is_test_line(n) {
                let found = shortcuts.iter().filter(|s| line.contains(**s));
                breaches.extend(found.map(|s| format!("{}:{n}: {s}", path.display())));
            }
            if source::has_word(line, "unsafe") && !path.ends_with(UNSAFE) {
                breaches.push(format!("{}:{n}: unsafe", path.display()));
            }
        }
    }
    assert_none("no unwrap, todo or unsafe", breaches);
}

#[test]
fn no_path_of_one_machine() {
    // Written in two parts, so that this file does not find itself.
    let private = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];
    let extensions = &["rs", "sh", "py", "toml", "yml", "md", "service"];
    let mut paths: Vec<PathBuf> =
        ["src", "tests", "bench", "config", "docker", "docs"].iter().flat_map(|f| files(f, extensions)).collect();
    paths.extend(
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", ".ci/run"]
            .map(PathBuf::from)
            .into_iter()
            .filter(|p| root().join(p).exists()),
    );
    let mut breaches = Vec::new();
    for path in paths {
        for (n, line) in read(&path).lines().enumerate() {
            let found = private.iter().filter(|p| source::starts_a_path(line, p));
            breaches.extend(found.map(|p| format!("{}:{}: {p}", path.display(), n + 1)));
        }
    }
    assert_none("no path of the machine it was written on", breaches);
}

#[test]
fn decisions_have_their_form() {
    let mut breaches = Vec::new();
    let mut numbers = BTreeMap::new();
    for path in files("docs/decisions", &["md"]) {
        let name = path.file_stem().and_then(|n| n.to_str()).expect("a name").to_owned();
        let number: String = name.chars().take_while(char::is_ascii_digit).collect();
        if number.len() != 4 || !name[number.len()..].starts_with('-') {
            breaches.push(format!("{}: the name is not NNNN-subject.md", path.display()));
        }
        if let Some(other) = numbers.insert(number, path.clone()) {
            breaches.push(format!("{}: has the number of {}", path.display(), other.display()));
        }
        let text = read(&path);
        for heading in ["Context", "Decision", "Alternatives", "Consequences"] {
            if !text.lines().any(|l| l.starts_with("## ") && l[3..].starts_with(heading)) {
                breaches.push(format!("{}: no heading '## {heading}'", path.display()));
            }
        }
    }
    assert_none("the form of decisions", breaches);
}

/// The Markdown files.
fn documents() -> Vec<PathBuf> {
    let top = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from);
    let below = ["docs", "tests", "bench"].iter().flat_map(|f| files(f, &["md"]));
    top.into_iter().chain(below).collect()
}

/// The words after `make` in the code spans and code blocks of a Markdown text.
fn make_targets(markdown: &str) -> BTreeSet<String> {
    let mut targets = BTreeSet::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let spans: Vec<&str> = if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for span in spans {
            let command = span.split('#').next().unwrap_or_default().trim();
            let words: Vec<&str> = command.split_whitespace().skip_while(|w| w.contains('=')).collect();
            if let ["make", target, ..] = words[..] {
                targets.insert(target.to_owned());
            }
        }
    }
    targets
}

#[test]
fn documents_name_make_targets_that_exist() {
    let makefile = read(Path::new("Makefile"));
    let mut breaches = Vec::new();
    for path in documents() {
        for target in make_targets(&read(&path)) {
            if !makefile.lines().any(|l| l.starts_with(&format!("{target}:"))) {
                breaches.push(format!("{}: make {target}", path.display()));
            }
        }
    }
    assert_none("targets of the Makefile", breaches);
}

/// The relative targets of a Markdown text's links, without their anchors.
fn link_targets(markdown: &str) -> BTreeSet<String> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let files = targets.filter(|t| !t.contains("://")).map(|t| t.split('#').next().unwrap_or_default());
    files.filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut breaches = Vec::new();
    for path in documents() {
        let folder = root().join(&path).parent().expect("a folder").to_path_buf();
        let lost = link_targets(&read(&path)).into_iter().filter(|t| !folder.join(t).exists());
        breaches.extend(lost.map(|t| format!("{}: {t}", path.display())));
    }
    assert_none("links between documents", breaches);
}

#[test]
fn dependencies_have_allowed_licences() {
    let deny: toml::Table = read(Path::new("deny.toml")).parse().expect("deny.toml parses");
    let allowed: Vec<&str> =
        deny["licenses"]["allow"].as_array().expect("a list").iter().filter_map(|v| v.as_str()).collect();
    let packages = built_packages();
    assert!(packages.len() > 50, "cargo names only {} packages", packages.len());
    let breaches = packages.iter().filter(|(_, licence)| !licences::permits(licence, &allowed));
    assert_none("licences", breaches.map(|(name, licence)| format!("{name}: '{licence}'")).collect());
}

/// (name and version, licence) of each package that is built here.
fn built_packages() -> Vec<(String, String)> {
    let out = |args: &[&str], program: &str| {
        let out = Command::new(program).args(args).current_dir(root()).output().expect("cargo and rustc run");
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let version = out(&["-vV"], "rustc");
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).expect("a host line");
    let json =
        out(&["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host], env!("CARGO"));
    let metadata: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let used: BTreeSet<&str> =
        metadata["resolve"]["nodes"].as_array().expect("nodes").iter().filter_map(|n| n["id"].as_str()).collect();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .filter(|p| p["id"].as_str().is_some_and(|id| used.contains(id)))
        .map(|p| (format!("{} {}", text(&p["name"]), text(&p["version"])), text(&p["license"])))
        .collect()
}

#[test]
fn the_layer_rule_finds_breaches() {
    assert!(import_breach("chunk", "meta").is_none());
    assert!(import_breach("config", "error").is_none());
    assert!(import_breach("meta", "chunk").is_some());
    assert!(import_breach("nfs", "admin").is_some());
    assert!(import_breach("nfs", "chunk").is_some());
    assert!(import_breach("nfs", "vfs").is_none());
    assert!(import_breach("vfs", "nowhere").is_some());
}

#[test]
fn links_are_found() {
    let text = "[a](docs/a.md#part), [b](https://example.org/b), [c](#here), ![d](d.svg)";
    assert_eq!(link_targets(text), BTreeSet::from(["d.svg".to_owned(), "docs/a.md".to_owned()]));
}

#[test]
fn make_targets_are_found_in_spans_and_blocks_only() {
    let text = "To make sure, run `make test`.\n```\nSOURCE=/usr make demo  # make coffee\n```\n";
    assert_eq!(make_targets(text), BTreeSet::from(["demo".to_owned(), "test".to_owned()]));
}
