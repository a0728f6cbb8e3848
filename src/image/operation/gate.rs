//! Gates: what must hold before the next wave comes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest command or URL, in bytes.
pub const MAX_GATE_TEXT: usize = 4096;

const CLIENTS: &str = "clients:";

/// A question to the outside world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// A line for `sh -c` that must exit 0.
    Command(String),
    /// An `http://` URL that must answer with a status of 2xx.
    Url(String),
    /// So many clients must have been seen reading from the wave's clones since it was switched.
    Clients(u64),
}

impl FromStr for Gate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim().is_empty() || text.len() > MAX_GATE_TEXT || text.contains('\0') {
            return Err(Error::invalid(format!("a gate of {} bytes", text.len()))
                .remedy(format!("a command or a URL of at most {MAX_GATE_TEXT} bytes, or clients:N")));
        }
        if text.starts_with("https://") {
            return Err(Error::invalid(format!("gate {text:?}: TLS is not spoken"))
                .remedy(format!("let a command ask: --gate 'curl -fsS {text}'")));
        }
        match text.strip_prefix(CLIENTS) {
            Some(number) => number.parse().map(Self::Clients).map_err(|_| {
                Error::invalid(format!("gate {text:?}")).remedy("write a number of clients, as in clients:10")
            }),
            None if text.starts_with("http://") => Ok(Self::Url(text.to_owned())),
            None => Ok(Self::Command(text.to_owned())),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(text) | Self::Url(text) => f.write_str(text),
            Self::Clients(number) => write!(f, "{CLIENTS}{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_as_they_are_written() {
        for (text, gate) in [
            ("clients:10", Gate::Clients(10)),
            ("http://[::1]:80/up", Gate::Url("http://[::1]:80/up".into())),
            ("test -e /tmp/ok", Gate::Command("test -e /tmp/ok".into())),
        ] {
            assert_eq!(text.parse::<Gate>().unwrap(), gate);
            assert_eq!(gate.to_string(), text);
        }
        for bad in ["", " ", "clients:", "clients:-1", "clients:many", "https://up", "a\0b", &"x".repeat(4097)] {
            assert!(bad.parse::<Gate>().is_err(), "{bad:?}");
        }
    }
}
