//! Labels on images, versions and clones, and selectors over them.
//!
//! Owns the grammar: keys are 1 to 63 bytes of ASCII letters, digits and `._/-`, with a letter or
//! digit at both ends; values are 0 to 63 bytes of letters, digits and `._/:@+-`. So neither holds a
//! character that a selector gives a meaning to (`=`, `!`, `,`, blank), and `k-` can only mean
//! "remove k".
//!
//! Invariants: sorted by key, no key twice, at most [`MAX_LABELS`]; also after decoding. The grammar
//! may widen, never narrow: stored labels are checked against it when they are read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};

/// Labels on one object.
pub const MAX_LABELS: usize = 32;
/// Longest key, in bytes.
pub const MAX_LABEL_KEY: usize = 63;
/// Longest value, in bytes.
pub const MAX_LABEL_VALUE: usize = 63;
/// Terms of one selector.
pub const MAX_TERMS: usize = 32;

/// Sorted pairs of key and value. Compact, because many clones carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub fn new() -> Self {
        Self::default()
    }

    /// From pairs in any order; of equal keys the last one counts.
    pub fn from_pairs<K: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self> {
        let mut labels = Self::new();
        for (key, value) in pairs {
            labels.set(key.as_ref(), value.as_ref())?;
        }
        Ok(labels)
    }

    /// From arguments of the form `k=v`; of equal keys the last one counts.
    pub fn parse<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut labels = Self::new();
        for argument in arguments {
            let (key, value) = split_pair(argument.as_ref())?;
            labels.set(key, value)?;
        }
        Ok(labels)
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.position(key).ok().map(|i| &*self.0[i].1)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Add or replace one label.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_value(key, value)?;
        match self.position(key) {
            Ok(i) => self.0[i].1 = value.into(),
            Err(_) if self.len() == MAX_LABELS => {
                return Err(Error::invalid(format!("label {key:?}: more than {MAX_LABELS} labels on one object"))
                    .remedy("remove a label first"));
            }
            Err(i) => self.edit(|pairs| pairs.insert(i, (key.into(), value.into()))),
        }
        Ok(())
    }

    /// Whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        let found = self.position(key);
        if let Ok(i) = found {
            self.edit(|pairs| drop(pairs.remove(i)));
        }
        found.is_ok()
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(k, _)| (**k).cmp(key))
    }

    fn edit(&mut self, change: impl FnOnce(&mut Vec<(Box<str>, Box<str>)>)) {
        let mut pairs = std::mem::take(&mut self.0).into_vec();
        change(&mut pairs);
        self.0 = pairs.into_boxed_slice();
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelsVisitor)
    }
}

struct LabelsVisitor;

impl<'de> de::Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_LABELS} labels")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            labels.set(&key, &value).map_err(de::Error::custom)?;
        }
        Ok(labels)
    }
}

/// Changes to labels, as arguments tell them: `k=v` sets, `k-` removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelEdits(Vec<(String, Option<String>)>);

impl LabelEdits {
    pub fn parse<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        arguments.into_iter().map(|a| parse_edit(a.as_ref())).collect::<Result<_>>().map(Self)
    }

    /// `labels` with the edits applied in order. Removing what is not there is no error.
    pub fn apply(&self, labels: &Labels) -> Result<Labels> {
        let mut labels = labels.clone();
        for (key, value) in &self.0 {
            match value {
                Some(value) => labels.set(key, value)?,
                None => drop(labels.remove(key)),
            }
        }
        Ok(labels)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_edit(argument: &str) -> Result<(String, Option<String>)> {
    if let (None, Some(key)) = (argument.find('='), argument.strip_suffix('-')) {
        check_key(key)?;
        return Ok((key.to_owned(), None));
    }
    let (key, value) = split_pair(argument)?;
    check_key(key)?;
    check_value(key, value)?;
    Ok((key.to_owned(), Some(value.to_owned())))
}

/// A conjunction of terms over labels; without terms it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// `k=v`
    Is(String, String),
    /// `k!=v`; matches also where there is no `k`.
    IsNot(String, String),
    /// `k`
    Has(String),
    /// `!k`
    Lacks(String),
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| term.matches(labels))
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.split(',').nth(MAX_TERMS).is_some() {
            return Err(Error::invalid(format!("selector of more than {MAX_TERMS} terms")));
        }
        text.split(',').map(|term| Term::parse(term.trim(), text)).collect::<Result<_>>().map(Self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{term}")?;
        }
        Ok(())
    }
}

impl Term {
    fn parse(term: &str, selector: &str) -> Result<Self> {
        let parsed = if let Some((key, value)) = term.split_once("!=") {
            Self::IsNot(key.to_owned(), value.to_owned())
        } else if let Some((key, value)) = term.split_once('=') {
            Self::Is(key.to_owned(), value.to_owned())
        } else if let Some(key) = term.strip_prefix('!') {
            Self::Lacks(key.to_owned())
        } else {
            Self::Has(term.to_owned())
        };
        parsed.check().map_err(|e| {
            Error::invalid(format!("selector {selector:?}: {}", e.what()))
                .remedy("write terms k=v, k!=v, k or !k, separated by commas")
        })?;
        Ok(parsed)
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Is(key, value) | Self::IsNot(key, value) => check_key(key).and_then(|()| check_value(key, value)),
            Self::Has(key) | Self::Lacks(key) => check_key(key),
        }
    }

    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Is(key, value) => labels.get(key) == Some(value),
            Self::IsNot(key, value) => labels.get(key) != Some(value),
            Self::Has(key) => labels.get(key).is_some(),
            Self::Lacks(key) => labels.get(key).is_none(),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(key, value) => write!(f, "{key}={value}"),
            Self::IsNot(key, value) => write!(f, "{key}!={value}"),
            Self::Has(key) => f.write_str(key),
            Self::Lacks(key) => write!(f, "!{key}"),
        }
    }
}

fn split_pair(argument: &str) -> Result<(&str, &str)> {
    argument.split_once('=').ok_or_else(|| Error::invalid(format!("label {argument:?} has no '='")).remedy("write k=v"))
}

fn check_key(key: &str) -> Result<()> {
    let edges = [key.bytes().next(), key.bytes().last()];
    let rule = if key.is_empty() {
        "the key is empty"
    } else if key.len() > MAX_LABEL_KEY {
        "the key is longer than 63 bytes"
    } else if !edges.iter().flatten().all(u8::is_ascii_alphanumeric) {
        "the key must begin and end with a letter or digit"
    } else if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(&b)) {
        "the key may hold letters, digits, '.', '_', '/' and '-'"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("label {key:?}: {rule}")))
}

fn check_value(key: &str, value: &str) -> Result<()> {
    let rule = if value.len() > MAX_LABEL_VALUE {
        "the value is longer than 63 bytes"
    } else if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/:@+-".contains(&b)) {
        "the value may hold letters, digits and any of . _ / : @ + -"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("label {key}={value:?}: {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::parse(text.split(',').filter(|t| !t.is_empty())).unwrap()
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_order_does_not() {
        assert_eq!(labels("b=2,a=1,b=3"), labels("b=3,a=1"));
        assert_eq!(labels("b=2,a=1").to_string(), "a=1,b=2");
    }

    #[test]
    fn pairs_outside_the_grammar_are_refused_by_name() {
        for bad in ["", "=v", "a", "-a=1", "a-=1", "a b=1", "a=b c", "a=x,y", "a==b", "a=!b"] {
            let error = Labels::parse([bad]).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Invalid, "{bad:?}");
        }
        let long = "k".repeat(64);
        assert!(Labels::parse([format!("{long}=v")]).unwrap_err().to_string().contains("63 bytes"));
        assert!(Labels::parse([format!("k={long}")]).unwrap_err().to_string().contains("63 bytes"));
        assert!(Labels::parse([format!("{}={}", &long[1..], &long[1..])]).is_ok());
    }

    #[test]
    fn an_object_has_at_most_32_labels() {
        let many = (0..32).map(|i| (format!("k{i}"), "v"));
        let mut full = Labels::from_pairs(many).unwrap();
        assert!(full.set("more", "v").is_err());
        full.set("k7", "replaced").unwrap();
        assert!(full.remove("k0") && !full.remove("k0"));
        full.set("more", "v").unwrap();
    }

    #[test]
    fn edits_set_and_remove() {
        let edits = LabelEdits::parse(["pool=b", "old-", "gone-", "dash=x-"]).unwrap();
        let edited = edits.apply(&labels("pool=a,old=1,kept=1")).unwrap();
        assert_eq!(edited, labels("pool=b,kept=1,dash=x-"));
        for bad in ["-", "a", "a b-", "a=b c"] {
            assert!(LabelEdits::parse([bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn selectors_are_conjunctions() {
        let on = labels("pool=demo,tier=gold");
        for (text, expected) in [
            ("pool=demo", true),
            ("pool=demo,tier=gold", true),
            ("pool=demo, tier=iron", false),
            ("pool!=demo", false),
            ("zone!=a", true),
            ("tier", true),
            ("!tier", false),
            ("!zone,pool", true),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&on), expected, "{text}");
            assert_eq!(selector.to_string(), text.replace(' ', ""));
        }
        for bad in ["", "a,", "a=b=c", "!", "a!b", "!a=b", "=b"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad:?}");
        }
        assert!(vec!["a"; 33].join(",").parse::<Selector>().is_err());
        assert!(Selector::default().matches(&on));
    }

    #[test]
    fn decoding_checks_the_grammar() {
        let bytes = postcard::to_stdvec(&labels("a=1,b=2")).unwrap();
        assert_eq!(postcard::from_bytes::<Labels>(&bytes).unwrap(), labels("a=1,b=2"));
        assert!(serde_json::from_str::<Labels>(r#"{"a b":"1"}"#).is_err());
        assert_eq!(serde_json::to_string(&labels("a=1")).unwrap(), r#"{"a":"1"}"#);
    }
}
