//! The one error type that crosses layers.
//!
//! `kind` says what the caller should do next (retry, tell the user, answer a status); `what` names
//! the object; `remedy` says what a person can do about it. The cause is kept, never flattened.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller must do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// The name is taken.
    Exists,
    /// The request itself is wrong and will never succeed as it stands.
    Invalid,
    /// Somebody was first; compute again from the new state.
    Conflict,
    /// The store, export or object refuses writes.
    ReadOnly,
    /// The disk or a quota is full.
    NoSpace,
    /// A handle names something that is gone for good.
    Stale,
    /// Stored bytes are not what their name says.
    Corrupt,
    /// Not now: shutting down, busy, or held by somebody else.
    Unavailable,
    /// The operating system reported a failure.
    Io,
    /// A bug in mimeo.
    Internal,
}

/// An error that names its object and, where there is one, the remedy.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), remedy: None, source: None }
    }

    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, what)
    }

    pub fn exists(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exists, what)
    }

    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, what)
    }

    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, what)
    }

    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// An operating-system failure on the object `what`; a full disk becomes `NoSpace`.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::new(kind, what).because(source)
    }

    /// Attach what a person can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Attach the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was wrong, with which object; without remedy and cause.
    pub fn what(&self) -> &str {
        &self.what
    }

    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut cause = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(c) = cause {
            write!(f, ": {c}")?;
            cause = c.source();
        }
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_object_cause_and_remedy() {
        let cause = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Error::io("pack 7", cause).remedy("free some space");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "pack 7: no storage space; free some space");
    }
}
