//! Gates: what must hold before the next wave comes.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
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
            None if text.starts_with("http://") => check_url(text).map(|()| Self::Url(text.to_owned())),
            None => Ok(Self::Command(text.to_owned())),
        }
    }
}

/// Refuse what could never be asked: when the gate comes, it is too late to correct it.
fn check_url(text: &str) -> Result<()> {
    let refused = |why: &str| {
        Error::invalid(format!("gate {text:?}: {why}")).remedy("write http://HOST/PATH or http://HOST:PORT/PATH")
    };
    let uri: Uri = text.parse().map_err(|e| refused("this is not a URL").because(e))?;
    let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
    if authority.host().trim_matches(['[', ']']).is_empty() {
        return Err(refused("it names no host"));
    }
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    match host_and_port.strip_prefix(authority.host()).unwrap_or_default() {
        "" => Ok(()),
        _ if authority.port_u16().is_some_and(|port| port > 0) => Ok(()),
        port => Err(refused(&format!("{port:?} is not a port from :1 to :65535"))),
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
            ("http://mon.example/ok?x=a%20b", Gate::Url("http://mon.example/ok?x=a%20b".into())),
            ("http://u@mon:8080", Gate::Url("http://u@mon:8080".into())),
            ("test -e /tmp/ok", Gate::Command("test -e /tmp/ok".into())),
        ] {
            assert_eq!(text.parse::<Gate>().unwrap(), gate);
            assert_eq!(gate.to_string(), text);
        }
        for bad in ["", " ", "clients:", "clients:-1", "clients:many", "https://up", "a\0b", &"x".repeat(4097)] {
            assert!(bad.parse::<Gate>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_asked_is_refused_at_once() {
        for bad in [
            "http://",
            "http:///ok",
            "http://:80/ok",
            "http://[]/ok",
            "http://mon/ok?x=a b",
            "http://mon:80800/ok",
            "http://mon:0/ok",
            "http://mon:/ok",
            "http://mon:www/ok",
        ] {
            let refused = bad.parse::<Gate>().unwrap_err();
            assert!(refused.what().contains(bad), "{refused}");
        }
    }
}
