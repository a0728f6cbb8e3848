//! Names of images, clones and tags, references to versions, and patterns for many clones.
//!
//! A name is 1 to 128 bytes of ASCII letters, digits, `.`, `_` and `-`, and begins with a letter or
//! digit: so it is one path component of an export, needs no quoting in a shell, and leaves `@` to
//! mean "version". A version is referred to as `NAME@vN`, `NAME@TAG`, or `NAME` for the newest.

use std::fmt;
use std::str::FromStr;

use super::record::{AUTOMATIC_SNAPSHOT, VersionNumber};
use crate::error::{Error, Result};

/// Longest name of an image, clone or tag, in bytes.
pub const MAX_OBJECT_NAME: usize = 128;
/// Clones that one call may create.
pub const MAX_CLONES_PER_CALL: usize = 100_000;
/// Widest number in a pattern, in digits.
pub const MAX_PATTERN_WIDTH: usize = 20;

/// Refuse what is no name. `kind` says what is named (`image`, `clone`, `tag`).
pub fn check_name(kind: &str, name: &str) -> Result<()> {
    let Some(rule) = broken_rule(name) else { return Ok(()) };
    let shown: String = name.chars().take(MAX_OBJECT_NAME).collect();
    Err(Error::invalid(format!("{kind} name {shown:?} {rule}"))
        .remedy("a name is 1 to 128 letters, digits, '.', '_' or '-', and begins with a letter or digit"))
}

fn broken_rule(name: &str) -> Option<&'static str> {
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_OBJECT_NAME {
        Some("is longer than 128 bytes")
    } else if name.chars().any(char::is_control) {
        Some("has characters that do not print")
    } else if name.contains('/') {
        Some("has a slash")
    } else if name.contains('@') {
        Some("has an '@', which is reserved for versions")
    } else if !name.is_ascii() {
        Some("has characters outside ASCII")
    } else if !name.bytes().all(ordinary) {
        Some("has a character that names may not have")
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() {
        Some("does not begin with a letter or digit")
    } else {
        None
    }
}

/// Refuse what is no tag: a name, but neither `latest` nor what reads like a version number.
pub fn check_tag(tag: &str) -> Result<()> {
    check_name("tag", tag)?;
    let number_like = tag.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if number_like || tag == "latest" {
        return Err(Error::invalid(format!("tag {tag:?} is reserved"))
            .remedy("choose a tag that is not 'latest' and does not look like a version (v1, v2, ...)"));
    }
    Ok(())
}

/// Refuse what is no name for a snapshot that a person takes.
pub fn check_snapshot_name(name: &str) -> Result<()> {
    check_name("snapshot", name)?;
    if name.starts_with(AUTOMATIC_SNAPSHOT) {
        return Err(Error::invalid(format!("snapshot name {name:?} is reserved for automatic snapshots"))
            .remedy(format!("choose a name that does not begin with {AUTOMATIC_SNAPSHOT:?}")));
    }
    Ok(())
}

/// Which version of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WhichVersion {
    /// The highest number that was not removed.
    Newest,
    Number(VersionNumber),
    Tag(String),
}

/// A version by name: `NAME@vN`, `NAME@TAG`, or `NAME` for the newest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionRef {
    pub image: String,
    pub version: WhichVersion,
}

impl VersionRef {
    pub fn newest(image: impl Into<String>) -> Self {
        Self { image: image.into(), version: WhichVersion::Newest }
    }

    pub fn number(image: impl Into<String>, number: VersionNumber) -> Self {
        Self { image: image.into(), version: WhichVersion::Number(number) }
    }
}

impl FromStr for VersionRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((image, version)) = text.split_once('@') else {
            check_name("image", text)?;
            return Ok(Self::newest(text));
        };
        check_name("image", image)?;
        let version = match parse_number(version) {
            Some(number) => WhichVersion::Number(number),
            None => check_tag(version).map(|()| WhichVersion::Tag(version.to_owned())).map_err(|e| {
                Error::invalid(format!("version {text:?}: {}", e.what()))
                    .remedy("write IMAGE@vN (from v1) or IMAGE@TAG")
            })?,
        };
        Ok(Self { image: image.to_owned(), version })
    }
}

/// `v1`, `v2`, ...: decimal without leading zeros, so that a version has one spelling.
fn parse_number(text: &str) -> Option<VersionNumber> {
    let digits = text.strip_prefix('v')?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            WhichVersion::Newest => f.write_str(&self.image),
            WhichVersion::Number(number) => write!(f, "{}@v{number}", self.image),
            WhichVersion::Tag(tag) => write!(f, "{}@{tag}", self.image),
        }
    }
}

/// An image as a whole, or one version of it: what `image rm IMAGE[@VERSION]` takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageRef {
    Image(String),
    Version(VersionRef),
}

impl FromStr for ImageRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let version: VersionRef = text.parse()?;
        Ok(match version.version {
            WhichVersion::Newest => Self::Image(version.image),
            _ => Self::Version(version),
        })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => f.write_str(image),
            Self::Version(version) => version.fmt(f),
        }
    }
}

/// A clone as it is, or a snapshot of it: `CLONE` or `CLONE@SNAPSHOT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloneRef {
    pub clone: String,
    pub snapshot: Option<String>,
}

impl FromStr for CloneRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (clone, snapshot) = match text.split_once('@') {
            Some((clone, snapshot)) => (clone, Some(snapshot)),
            None => (text, None),
        };
        check_name("clone", clone)?;
        snapshot.map_or(Ok(()), |name| check_name("snapshot", name))?;
        Ok(Self { clone: clone.to_owned(), snapshot: snapshot.map(str::to_owned) })
    }
}

impl fmt::Display for CloneRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.clone),
            None => f.write_str(&self.clone),
        }
    }
}

/// Names of many clones from a pattern with one number: `desk-{:04}` gives `desk-0000`,
/// `desk-0001`, ...; `{}` gives numbers without leading zeros. Counts from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneNames {
    before: String,
    after: String,
    /// Least digits of the number; without one the pattern is a name.
    width: Option<usize>,
    count: usize,
}

impl CloneNames {
    /// A pattern without a number is a name, for a count of 1.
    pub fn parse(pattern: &str, count: usize) -> Result<Self> {
        check_count(count)?;
        let names = match pattern.split_once('{') {
            None if count == 1 => Self { before: pattern.to_owned(), after: String::new(), width: None, count },
            None => return Err(bad_pattern(pattern, "has no number, but more than one clone is wanted")),
            Some((before, rest)) => {
                let (number, after) = rest.split_once('}').ok_or_else(|| bad_pattern(pattern, "has no closing '}'"))?;
                let width = parse_width(number).map_err(|rule| bad_pattern(pattern, rule))?;
                Self { before: before.to_owned(), after: after.to_owned(), width: Some(width), count }
            }
        };
        // The last name is the longest; the characters around the number are the same in all.
        check_name("clone", &names.name(count - 1))?;
        Ok(names)
    }

    pub fn iter(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(|i| self.name(i))
    }

    fn name(&self, i: usize) -> String {
        let Self { before, after, .. } = self;
        self.width.map_or_else(|| before.clone(), |width| format!("{before}{i:0width$}{after}"))
    }
}

/// Refuse to create no clones, or more than one call may.
pub(super) fn check_count(count: usize) -> Result<()> {
    match count {
        0 => Err(Error::invalid("no clone is named").remedy("give a name, or a count of at least 1")),
        1..=MAX_CLONES_PER_CALL => Ok(()),
        _ => Err(Error::invalid(format!("{count} clones in one call")).remedy("create at most 100000 clones per call")),
    }
}

/// The width in `{}` (0) or `{:0W}`.
fn parse_width(number: &str) -> Result<usize, &'static str> {
    if number.is_empty() {
        return Ok(0);
    }
    let width = number.strip_prefix(":0").and_then(|w| w.parse().ok()).filter(|w| *w > 0);
    let width: usize = width.ok_or("has a number that is neither {} nor {:0W}")?;
    if width <= MAX_PATTERN_WIDTH { Ok(width) } else { Err("has a number of more than 20 digits") }
}

fn bad_pattern(pattern: &str, rule: &str) -> Error {
    Error::invalid(format!("name pattern {pattern:?} {rule}")).remedy("write one {} or {:0W}, as in 'desk-{:04}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_refused_say_why() {
        let long = "a".repeat(129);
        for (name, why) in [
            ("", "empty"),
            (long.as_str(), "longer than 128"),
            ("a/b", "slash"),
            ("a@b", "reserved for versions"),
            ("a\nb", "do not print"),
            ("a\u{7f}", "do not print"),
            ("gr\u{fc}n", "outside ASCII"),
            ("a b", "may not have"),
            (".hidden", "begin"),
            ("..", "begin"),
            ("-x", "begin"),
        ] {
            let error = check_name("clone", name).unwrap_err();
            assert!(error.what().starts_with("clone name"), "{error}");
            assert!(error.what().contains(why), "{name:?}: {error}");
        }
        for name in ["a", "0", "desk-0007", "Win_11.3", &long[1..]] {
            check_name("image", name).unwrap();
        }
    }

    #[test]
    fn references_print_as_they_parse() {
        for text in ["win11", "win11@v1", "win11@v4294967295", "win11@stable", "a@version2"] {
            assert_eq!(text.parse::<VersionRef>().unwrap().to_string(), text);
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), text);
        }
        assert_eq!("a@v7".parse::<VersionRef>().unwrap(), VersionRef::number("a", 7));
        assert_eq!("a".parse::<ImageRef>().unwrap(), ImageRef::Image("a".into()));
        for bad in ["", "@v1", "a@", "a@v0", "a@v01", "a@v4294967296", "a@v1@v2", "a@latest", "a/b@v1", "a@x y"] {
            assert!(bad.parse::<VersionRef>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn snapshots_are_named_behind_their_clone() {
        for text in ["desk", "desk@nightly", "desk@before-op-7"] {
            assert_eq!(text.parse::<CloneRef>().unwrap().to_string(), text);
        }
        for bad in ["", "@a", "desk@", "desk@a@b", "a/b@c", "desk@a b"] {
            assert!(bad.parse::<CloneRef>().is_err(), "{bad:?}");
        }
        check_snapshot_name("before-lunch").unwrap();
        assert!(check_snapshot_name("before-op-7").unwrap_err().what().contains("reserved"));
    }

    #[test]
    fn tags_do_not_look_like_versions() {
        for bad in ["v1", "v007", "latest", "", "a/b"] {
            assert!(check_tag(bad).is_err(), "{bad:?}");
        }
        for good in ["stable", "v", "v1-rc", "2026-07"] {
            check_tag(good).unwrap();
        }
    }

    #[test]
    fn patterns_expand_from_zero() {
        let names = |pattern, count| CloneNames::parse(pattern, count).map(|n| n.iter().collect::<Vec<_>>());
        assert_eq!(names("desk-{:04}", 3).unwrap(), ["desk-0000", "desk-0001", "desk-0002"]);
        assert_eq!(names("d{}x", 11).unwrap()[9..], ["d9x", "d10x"]);
        assert_eq!(names("{:02}", 101).unwrap()[99..], ["99", "100"]);
        assert_eq!(names("solo", 1).unwrap(), ["solo"]);
        assert_eq!(names("desk-{:04}", MAX_CLONES_PER_CALL).unwrap().len(), MAX_CLONES_PER_CALL);
        for (pattern, count) in [
            ("desk", 2),
            ("desk-{", 2),
            ("desk-{:4}", 2),
            ("desk-{:0}", 2),
            ("desk-{:021}", 2),
            ("{}-{}", 2),
            ("a/{}", 2),
            ("{}", 0),
            ("{}", MAX_CLONES_PER_CALL + 1),
            ("", 1),
        ] {
            assert!(names(pattern, count).is_err(), "{pattern:?} {count}");
        }
    }
}
