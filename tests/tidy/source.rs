//! A Rust file as lines of code: strings, characters and comments are blanked, so that what is left can be
//! searched as text. Not a parser: it knows tokens, braces and the shape of an item.

use std::path::{Path, PathBuf};

pub struct Source {
    code: String,
    test_lines: Vec<bool>,
}

pub struct Function {
    pub name: String,
    /// Where it starts, from 1.
    pub line: usize,
    pub lines: usize,
}

impl Source {
    pub fn parse(text: &str) -> Self {
        let code = blank(text);
        let test_lines = test_lines(&code);
        Self { code, test_lines }
    }

    /// (number from 1, line) of the code.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(n, line)| (n + 1, line))
    }

    /// Whether the line, from 1, is under a `#[cfg(test)]` of this file.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// The files of modules that this file declares for tests only (`#[cfg(test)] mod name;`).
    pub fn test_files(&self, path: &Path) -> Vec<PathBuf> {
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new(""));
        let folder = if ["mod", "lib", "main"].contains(&stem) { parent.to_path_buf() } else { parent.join(stem) };
        let declared = self.code_lines().filter(|(n, _)| self.is_test_line(*n));
        declared.filter_map(|(_, line)| module_declared(line)).map(|name| folder.join(format!("{name}.rs"))).collect()
    }

    /// (line, module) of each path that starts with `crate::`, groups in braces included.
    pub fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| c == '$' || is_ident(c)) {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = self.code[at + "crate::".len()..].trim_start();
            let names = if let Some(group) = rest.strip_prefix('{') { group_heads(group) } else { vec![ident(rest)] };
            // A capital is an item of lib.rs, not a module.
            let modules = names.into_iter().filter(|n| n.starts_with(|c: char| c.is_ascii_lowercase()));
            found.extend(modules.map(|name| (line, name)));
        }
        found
    }

    pub fn names_crate(&self, name: &str) -> bool {
        let path = format!("{name}::");
        self.code_lines().any(|(_, line)| {
            line.match_indices(&path).any(|(at, _)| !line[..at].ends_with(|c| is_ident(c) || c == ':'))
        })
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let name = ident(self.code[at + 3..].trim_start());
            if self.code[..at].ends_with(is_ident) || name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(&self.code[at..]) {
                let line = self.code[..at].matches('\n').count() + 1;
                let lines = self.code[at..at + end].matches('\n').count() + 1;
                found.push(Function { name, line, lines });
            }
        }
        found
    }
}

pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_ident) && !line[at + word.len()..].starts_with(is_ident))
}

/// Whether `path` occurs in the line as the start of an absolute path.
pub fn starts_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(|c: char| is_ident(c) || ".-}*)".contains(c)))
}

fn is_ident(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn ident(text: &str) -> String {
    text.chars().take_while(|c| is_ident(*c)).collect()
}

/// The first names of a `{a::b, c::{d, e}}` group; `text` starts behind its brace.
fn group_heads(text: &str) -> Vec<String> {
    let (mut depth, mut heads, mut fresh) = (0, Vec::new(), true);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && is_ident(c) => {
                heads.push(ident(&text[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

/// Where the item that starts here ends: behind its braces, or nothing if a semicolon comes first.
fn body_end(text: &str) -> Option<usize> {
    let (mut braces, mut others) = (0usize, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' if braces == 0 => others += 1,
            ')' | ']' if braces == 0 => others = others.checked_sub(1)?,
            ';' if braces == 0 && others == 0 => return None,
            '{' if others == 0 => braces += 1,
            '}' if others == 0 => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn module_declared(line: &str) -> Option<String> {
    let line = line.trim().strip_suffix(';')?;
    let (visibility, name) =
        line.split_once("mod ").filter(|(v, _)| v.is_empty() || v.starts_with("pub") || v.starts_with("#["))?;
    debug_assert!(!visibility.contains("use "));
    Some(name.trim().to_owned())
}

/// Which lines are under a `#[cfg(test)]` (or a `cfg` that any test makes true).
fn test_lines(code: &str) -> Vec<bool> {
    let starts: Vec<usize> = std::iter::once(0).chain(code.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line_of = |at: usize| starts.partition_point(|s| *s <= at) - 1;
    let mut marked = vec![false; starts.len()];
    for (at, attribute) in code.match_indices("#[cfg(test)]").chain(code.match_indices("#[test]")) {
        let item = at + attribute.len();
        let end = body_end(&code[item..]).or_else(|| code[item..].find(';')).map_or(code.len() - 1, |e| item + e);
        marked[line_of(at)..=line_of(end.min(code.len() - 1))].fill(true);
    }
    marked
}

/// The text with the insides of comments, strings and characters replaced by blanks, line by line the same.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        if let Some((from, to)) = end.hidden {
            out[from..to].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        }
        at = end.next;
    }
    String::from_utf8(out).expect("only whole characters were replaced")
}

struct Token {
    next: usize,
    /// What is to be blanked.
    hidden: Option<(usize, usize)>,
}

fn token_end(b: &[u8], at: usize) -> Token {
    let hide = |from: usize, next: usize| Token { next, hidden: Some((from, next)) };
    let rest = &b[at..];
    if rest.starts_with(b"//") {
        return hide(at, at + rest.iter().position(|c| *c == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return hide(at, block_comment_end(b, at));
    }
    if let Some(end) = raw_string_end(b, at) {
        return hide(at, end);
    }
    match rest[0] {
        b'"' => hide(at, quoted_end(b, at + 1, b'"')),
        b'\'' if is_char_literal(rest) => hide(at, quoted_end(b, at + 1, b'\'')),
        c if is_ident(char::from(c)) => {
            let len = rest.iter().position(|c| !is_ident(char::from(*c))).unwrap_or(rest.len());
            // The `b` of `b"..."`, or the start of a raw string, is taken up where its quote is.
            let prefix = if [&b"r"[..], b"br", b"b", b"c", b"cr"].contains(&&rest[..len]) { 1 } else { len };
            Token { next: at + prefix, hidden: None }
        }
        _ => Token { next: at + 1, hidden: None },
    }
}

fn block_comment_end(b: &[u8], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < b.len() {
        if b[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if b[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    b.len()
}

/// The end of `r"..."` or `r#"..."#`, if one starts here.
fn raw_string_end(b: &[u8], at: usize) -> Option<usize> {
    let rest = b[at..].strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|c| **c == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = at + 1 + hashes + 1;
    let len = b[body..].windows(close.len()).position(|w| w == close)?;
    Some(body + len + close.len())
}

fn quoted_end(b: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    while at < b.len() && b[at] != quote {
        at += if b[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(b.len())
}

/// A quote opens a character, not a lifetime, if an escape follows or another quote after one character.
fn is_char_literal(rest: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]).into_owned();
    let mut chars = text.chars();
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_blanked() {
        let code = blank(
            "let a = \"x.unwrap()\\\"{\"; // crate::nfs\nlet b = r#\"}\"#; /* { /* */ } */ let c = '{'; let d: &'static u8 = b\"{\";",
        );
        assert!(!code.contains(['{', '}']) && !code.contains("unwrap") && !code.contains("crate"), "{code}");
        assert!(code.contains("let b =") && code.contains("let c =") && code.contains("&'static u8"), "{code}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn crate_paths_are_found() {
        let source = Source::parse(
            "use crate::chunk::Id;\nuse crate::{env::{Disk, Env}, error::Error, Top};\nfn f() { crate::meta::open(); my_crate::x(); }\n",
        );
        let found: Vec<_> = source.crate_paths();
        assert_eq!(found, [(1, "chunk".into()), (2, "env".into()), (2, "error".into()), (3, "meta".into())]);
        assert!(Source::parse("use rocksdb::DB;").names_crate("rocksdb"));
        assert!(!Source::parse("// rocksdb::DB\nuse librocksdb::DB;").names_crate("rocksdb"));
    }

    #[test]
    fn functions_are_measured() {
        let source = Source::parse(
            "trait T { fn a(&self) -> [u8; 2]; fn b() {\n}\n}\nfn c(x: [u8; 3])\nwhere u8: Sized,\n{\n    if x { }\n}\n",
        );
        let found: Vec<_> = source.functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("b".to_owned(), 1, 2), ("c".to_owned(), 4, 5)]);
    }

    #[test]
    fn test_code_is_known() {
        let source = Source::parse(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod suite;\n",
        );
        let marked: Vec<usize> = (1..=8).filter(|n| source.is_test_line(*n)).collect();
        assert_eq!(marked, [2, 3, 4, 5, 7, 8]);
        assert_eq!(source.test_files(Path::new("src/meta/rocks.rs")), [PathBuf::from("src/meta/rocks/suite.rs")]);
        assert_eq!(source.test_files(Path::new("src/meta/mod.rs")), [PathBuf::from("src/meta/suite.rs")]);
    }

    #[test]
    fn words_and_paths() {
        assert!(has_word("x unsafe {", "unsafe") && !has_word("unsafe_code", "unsafe"));
        assert!(starts_a_path("cd /abc/x", "/abc/") && !starts_a_path("$x/y/abc/z", "/abc/"));
    }
}
