//! One line of the audit log, and how values are cut so that it stays short.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::env::Time;

/// Longest line, in bytes.
pub const MAX_LINE: usize = 16 * 1024;
/// Most bytes of each of a line's values, encoded.
const MAX_VALUE: usize = 4096;
/// Longest text in it, in characters: the first of these with which all of the value fits.
const MAX_TEXTS: [usize; 3] = [1024, 256, 64];
/// Longest text elsewhere.
const MAX_TEXT: usize = 256;
/// Most items of a list in it; how many more there were is told.
const MAX_ITEMS: usize = 16;
/// How deep it may be.
const MAX_DEPTH: usize = 6;

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// `uid N`, or `mimeo` for what it does of its own accord.
    pub who: String,
    pub pid: Option<u32>,
    /// The socket that it came in by, or the cause: `mount by ADDRESS`, `op-N`, `idle`.
    pub from: String,
}

impl Actor {
    /// What is done of mimeo's own accord, because of this.
    pub fn mimeo(cause: impl Into<String>) -> Self {
        Self { who: "mimeo".into(), pid: None, from: cause.into() }
    }
}

/// A change that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    pub actor: Actor,
    /// An endpoint, or a word for what mimeo does itself.
    pub action: String,
    /// What was asked, in full or in part.
    pub request: Value,
    /// What was there before.
    pub before: Value,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// `None`: it was done.
    pub error: Option<String>,
    pub operation: Option<String>,
    /// What is there now.
    pub after: Value,
}

impl Outcome {
    pub fn done(after: Value) -> Self {
        Self { error: None, operation: None, after }
    }

    pub fn failed(error: impl ToString) -> Self {
        Self { error: Some(error.to_string()), operation: None, after: Value::Null }
    }

    #[must_use]
    pub fn by(self, operation: Option<impl ToString>) -> Self {
        Self { operation: operation.map(|operation| operation.to_string()), ..self }
    }
}

/// As it stands in the file. What is not there is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    pub id: u64,
    pub time: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub request: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// `done` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub after: Value,
}

impl Line {
    pub fn asked(id: u64, at: Time, deed: &Deed) -> Self {
        Self {
            id,
            time: at.rfc3339(),
            actor: Some(Actor { from: cut_text(&deed.actor.from), ..deed.actor.clone() }),
            action: Some(cut_text(&deed.action)),
            request: summary(&deed.request),
            before: summary(&deed.before),
            ..Self::default()
        }
    }

    pub fn done(id: u64, at: Time, outcome: &Outcome) -> Self {
        let word = if outcome.error.is_none() { "done" } else { "failed" };
        Self {
            id,
            time: at.rfc3339(),
            outcome: Some(word.into()),
            error: outcome.error.as_deref().map(cut_text),
            operation: outcome.operation.as_deref().map(cut_text),
            after: summary(&outcome.after),
            ..Self::default()
        }
    }

    pub fn to_text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("our lines have string keys only");
        debug_assert!(text.len() < MAX_LINE);
        text.push(b'\n');
        text
    }
}

/// `value` with long texts, long lists and what lies too deep cut, and said so. If it is too long all the same,
/// its length alone.
pub fn summary(value: &Value) -> Value {
    let len = |value: &Value| serde_json::to_vec(value).map_or(0, |text| text.len());
    let mut short = MAX_TEXTS.iter().map(|max| cut(value, *max, 0));
    short.find(|short| len(short) <= MAX_VALUE).unwrap_or_else(|| json!({ "bytes_left_out": len(value) }))
}

fn cut(value: &Value, max_text: usize, depth: usize) -> Value {
    if depth == MAX_DEPTH {
        return Value::String("...".into());
    }
    match value {
        Value::String(text) => Value::String(cut_text_to(max_text, text)),
        Value::Array(items) => {
            let mut short: Vec<_> = items.iter().take(MAX_ITEMS).map(|item| cut(item, max_text, depth + 1)).collect();
            if items.len() > MAX_ITEMS {
                short.push(Value::String(format!("... {} more", items.len() - MAX_ITEMS)));
            }
            Value::Array(short)
        }
        Value::Object(fields) => {
            let mut short: Map<_, _> = fields
                .iter()
                .filter(|(_, field)| !is_nothing(field))
                .take(MAX_ITEMS)
                .map(|(key, field)| (cut_text(key), cut(field, max_text, depth + 1)))
                .collect();
            if fields.len() > MAX_ITEMS {
                short.insert("...".into(), json!(format!("{} fields", fields.len())));
            }
            Value::Object(short)
        }
        plain => plain.clone(),
    }
}

/// What says nothing: an option that was not given.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn cut_text(text: &str) -> String {
    cut_text_to(MAX_TEXT, text)
}

fn cut_text_to(max: usize, text: &str) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
