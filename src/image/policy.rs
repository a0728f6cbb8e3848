//! What a switch to another version does with private writes, and when.
//!
//! Owns the three choices, where they may be made (an operation, a clone, its image) and in which order
//! they count: the operation's, else the clone's, else the image's, else [`Writes::Keep`] with
//! [`OnConflict::Stop`], live. All of it is data; `fleet` acts on it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::path_words::{path_bytes, path_words};
use crate::error::{Error, Result};

/// Paths that one policy may preserve.
pub const MAX_PRESERVED: usize = 64;
/// Longest of them, in bytes.
pub const MAX_PRESERVED_PATH: usize = 4096;

/// What becomes of a clone's private writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Writes {
    /// They go along, path by path: what the new version did not touch stays as the clone has it.
    #[default]
    Keep,
    /// A snapshot is taken; then the clone shows the version alone.
    Discard,
    /// What lies at or below these paths is kept, the rest discarded.
    Preserve(Preserved),
    /// A clone that has any stays as it is, marked as lagging.
    Stay,
}

/// Paths from the root, without a leading slash, in [words](path_words): normalised, sorted, none below another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Preserved(Arc<[String]>);

/// What happens where both the clone and the version changed the same thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OnConflict {
    /// Nothing is switched at all.
    #[default]
    Stop,
    /// The clone's stays.
    CloneWins,
    /// The version's shows; the clone's is saved beside it.
    ImageWins,
}

/// When a clone shows the new version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Activation {
    /// At once, under live mounts.
    #[default]
    Live,
    /// When it is mounted next and nobody uses it.
    OnMount,
}

/// What is chosen at one place; `None` is left to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SwitchPolicy {
    pub writes: Option<Writes>,
    pub conflict: Option<OnConflict>,
    pub activation: Option<Activation>,
}

/// Changes to a [`SwitchPolicy`]: `None` leaves a choice as it is, `Some(None)` leaves it to the next place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchEdits {
    pub writes: Option<Option<Writes>>,
    pub conflict: Option<Option<OnConflict>>,
    pub activation: Option<Option<Activation>>,
}

impl SwitchEdits {
    pub fn apply(&self, policy: &SwitchPolicy) -> SwitchPolicy {
        SwitchPolicy {
            writes: self.writes.clone().unwrap_or_else(|| policy.writes.clone()),
            conflict: self.conflict.unwrap_or(policy.conflict),
            activation: self.activation.unwrap_or(policy.activation),
        }
    }
}

impl From<Writes> for SwitchPolicy {
    fn from(writes: Writes) -> Self {
        Self { writes: Some(writes), ..Self::default() }
    }
}

impl SwitchPolicy {
    /// This, and where it leaves something open, `other`.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            writes: self.writes.clone().or_else(|| other.writes.clone()),
            conflict: self.conflict.or(other.conflict),
            activation: self.activation.or(other.activation),
        }
    }

    pub fn writes(&self) -> Writes {
        self.writes.clone().unwrap_or_default()
    }

    pub fn conflict(&self) -> OnConflict {
        self.conflict.unwrap_or_default()
    }

    pub fn activation(&self) -> Activation {
        self.activation.unwrap_or_default()
    }
}

impl Preserved {
    /// `/a/b`, `a/b/` and `a/b` are the same path.
    pub fn new(paths: &[String]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::invalid("no path to preserve").remedy("name at least one, with --path"));
        }
        if paths.len() > MAX_PRESERVED {
            return Err(Error::invalid(format!("{} paths to preserve", paths.len()))
                .remedy(format!("name at most {MAX_PRESERVED}, or their common folder")));
        }
        let mut normal: Vec<String> = paths.iter().map(|path| normalised(path)).collect::<Result<_>>()?;
        normal.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        normal.dedup_by(|path, kept| is_at_or_below(path, kept));
        Ok(Self(normal.into()))
    }

    /// In words.
    pub fn paths(&self) -> &[String] {
        &self.0
    }

    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|path| path_bytes(path.as_bytes())).collect()
    }
}

fn normalised(path: &str) -> Result<String> {
    let bad = |why: &str| {
        Error::invalid(format!("path to preserve {path:?}: {why}")).remedy("write it from the root: /var/lib")
    };
    if path.len() > MAX_PRESERVED_PATH {
        return Err(bad("it is too long"));
    }
    let bytes = path_bytes(path.as_bytes());
    let names: Vec<_> = bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    match names.contains(&&b".."[..]) {
        _ if bytes.contains(&0) => Err(bad("no name has a NUL")),
        true => Err(bad("it leads upwards")),
        false if names.is_empty() => Err(bad("that is everything").remedy("to keep all writes, use --writes keep")),
        false => Ok(path_words(&names.join(&b'/'))),
    }
}

fn is_at_or_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Writes {
    /// From the words of the command line.
    pub fn parse(word: &str, paths: &[String]) -> Result<Self> {
        let writes = match word {
            "keep" => Self::Keep,
            "discard" => Self::Discard,
            "stay" => Self::Stay,
            "preserve" => return Preserved::new(paths).map(Self::Preserve),
            _ => {
                return Err(
                    Error::invalid(format!("private writes: {word:?}")).remedy("one of keep, discard, preserve, stay")
                );
            }
        };
        if paths.is_empty() {
            return Ok(writes);
        }
        Err(Error::invalid(format!("paths, and private writes {word}")).remedy("paths go with --writes preserve"))
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Discard => "discard",
            Self::Preserve(_) => "preserve",
            Self::Stay => "stay",
        })
    }
}

/// The words of a choice, for reading and writing it.
macro_rules! words {
    ($type:ty, $what:literal, $($variant:path => $word:literal),+) => {
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($word => Ok($variant),)+
                    _ => Err(Error::invalid(format!("{}: {text:?}", $what)).remedy(concat!("one of", $(" ", $word),+))),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $word,)+ })
            }
        }
    };
}

words!(OnConflict, "conflict", OnConflict::Stop => "stop", OnConflict::CloneWins => "clone-wins",
    OnConflict::ImageWins => "image-wins");
words!(Activation, "activation", Activation::Live => "live", Activation::OnMount => "on-mount");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preserved_paths_are_normalised_and_none_is_below_another() {
        let paths = ["/var/lib/", "etc//ssh", "var/lib/dpkg", "./home", "etc/ssh", "etc/ssh2"].map(str::to_owned);
        assert_eq!(Preserved::new(&paths).unwrap().paths(), ["etc/ssh", "etc/ssh2", "home", "var/lib"]);
        let odd = ["a/\\xff/b", "\\x61/\\xff/", "b\\", "\u{e9}"].map(str::to_owned);
        let odd = Preserved::new(&odd).unwrap();
        assert_eq!(odd.paths(), ["a/\\xff", "b\\x5c", "\u{e9}"]);
        assert_eq!(odd.bytes(), [&b"a/\xff"[..], b"b\\", b"\xc3\xa9"]);
        for bad in ["", "/", "a/../b", ".", "a/\\x2e./b", "\\x00"] {
            assert!(Preserved::new(&[bad.to_owned()]).unwrap_err().what().contains(&format!("{bad:?}")));
        }
        assert!(Preserved::new(&[]).is_err());
        assert!(Preserved::new(&vec!["a".to_owned(); MAX_PRESERVED + 1]).is_err());
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in ["keep", "discard", "stay"] {
            assert_eq!(Writes::parse(word, &[]).unwrap().to_string(), word);
            assert!(Writes::parse(word, &["a".into()]).unwrap_err().what().contains(word));
        }
        assert_eq!(Writes::parse("preserve", &["a".into()]).unwrap().to_string(), "preserve");
        for word in ["stop", "clone-wins", "image-wins"] {
            assert_eq!(word.parse::<OnConflict>().unwrap().to_string(), word);
        }
        for word in ["live", "on-mount"] {
            assert_eq!(word.parse::<Activation>().unwrap().to_string(), word);
        }
        assert!("never".parse::<Activation>().unwrap_err().what().contains("never"));
    }

    #[test]
    fn what_one_place_leaves_open_the_next_decides() {
        let operation = SwitchPolicy { conflict: Some(OnConflict::ImageWins), ..SwitchPolicy::default() };
        let clone = SwitchPolicy { writes: Some(Writes::Discard), conflict: Some(OnConflict::Stop), activation: None };
        let both = operation.or(&clone);
        assert_eq!(
            (both.writes(), both.conflict(), both.activation()),
            (Writes::Discard, OnConflict::ImageWins, Activation::Live)
        );
    }
}
