//! Which client mounts which export: a path with one number in it, as in `/clones/desk-{:04}`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Widest number, in digits.
const MAX_WIDTH: usize = 20;
/// Longest path of an export, in bytes (MNTPATHLEN).
const MAX_PATH: usize = 1024;

/// A path with a number in it; without one, all clients mount the same export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exports {
    before: String,
    after: String,
    /// Least digits of the number.
    width: Option<usize>,
}

impl Exports {
    pub fn path(&self, number: u64) -> String {
        let Self { before, after, width } = self;
        width.map_or_else(|| before.clone(), |width| format!("{before}{number:0width$}{after}"))
    }
}

impl fmt::Display for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, after, width } = self;
        match width {
            None => f.write_str(before),
            Some(0) => write!(f, "{before}{{}}{after}"),
            Some(width) => write!(f, "{before}{{:0{width}}}{after}"),
        }
    }
}

impl FromStr for Exports {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.starts_with('/') {
            return Err(refused(text, "does not begin with a slash"));
        }
        if text.len() > MAX_PATH - MAX_WIDTH {
            return Err(refused(text, "is longer than a MOUNT path may be"));
        }
        let Some((before, rest)) = text.split_once('{') else {
            return Ok(Self { before: text.to_owned(), after: String::new(), width: None });
        };
        let (number, after) = rest.split_once('}').ok_or_else(|| refused(text, "has no closing '}'"))?;
        if after.contains('{') {
            return Err(refused(text, "has more than one number"));
        }
        let width = width(number).ok_or_else(|| refused(text, "has a number that is neither {} nor {:0W}"))?;
        Ok(Self { before: before.to_owned(), after: after.to_owned(), width: Some(width) })
    }
}

/// The width in `{}` (0) or `{:0W}`.
fn width(number: &str) -> Option<usize> {
    if number.is_empty() {
        return Some(0);
    }
    number.strip_prefix(":0")?.parse().ok().filter(|width| (1..=MAX_WIDTH).contains(width))
}

fn refused(text: &str, why: &str) -> Error {
    Error::invalid(format!("export {text:?} {why}"))
        .remedy("write a path with one {} or {:0W}, as in '/clones/desk-{:04}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_put_in() {
        let path = |pattern: &str, n| {
            let exports: Exports = pattern.parse().unwrap();
            assert_eq!(exports.to_string(), pattern);
            exports.path(n)
        };
        assert_eq!(path("/clones/desk-{:04}", 7), "/clones/desk-0007");
        assert_eq!(path("/clones/{}/x", 12345), "/clones/12345/x");
        assert_eq!(path("/images/base@v1", 3), "/images/base@v1");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["desk-{}", "/a{", "/a{x}", "/a{:4}", "/a{:0}", "/a{:021}", "/{}{}"] {
            assert!(bad.parse::<Exports>().is_err(), "{bad}");
        }
        assert!("/".repeat(MAX_PATH).parse::<Exports>().is_err());
    }
}
