//! Times that an admin gives.

use jiff::{SignedDuration, Timestamp};

use crate::env::Time;
use crate::error::{Error, Result};

/// How far ahead an operation may be scheduled, in seconds: a year.
const MAX_AHEAD_SECS: i64 = 366 * 24 * 3600;

/// RFC 3339, or `+2h` from now. What is over, or too far ahead, is a mistake.
pub(super) fn parse(text: &str, now: Time) -> Result<Time> {
    let bad = || Error::invalid(format!("time {text:?}"));
    let remedy = "write 2026-12-24T22:00:00+01:00, or a time from now: +90m, +2h, +1h30m";
    let time = match text.strip_prefix('+') {
        Some(ahead) => {
            let ahead: SignedDuration = ahead.parse().map_err(|e: jiff::Error| bad().because(e).remedy(remedy))?;
            Time { secs: now.secs.saturating_add(ahead.as_secs()), ..now }
        }
        None => {
            let time: Timestamp = text.parse().map_err(|e: jiff::Error| bad().because(e).remedy(remedy))?;
            Time::new(time.as_second(), u32::try_from(time.subsec_nanosecond()).unwrap_or(0))
        }
    };
    match time.secs.saturating_sub(now.secs) {
        _ if time < now => Err(bad().because("it is over").remedy(remedy)),
        MAX_AHEAD_SECS.. => Err(bad().because("it is more than a year ahead").remedy(remedy)),
        _ => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_from_now() {
        let now = Time::new(1_784_600_000, 5);
        assert_eq!(parse("+2h", now).unwrap(), Time::new(now.secs + 7200, 5));
        assert_eq!(parse("+1h30m", now).unwrap(), Time::new(now.secs + 5400, 5));
        assert_eq!(parse("2026-07-21T02:13:21.5Z", now).unwrap(), Time::new(1_784_600_001, 500_000_000));
        for bad in ["", "+", "+2 parsecs", "tomorrow", "+-2h", "+9000h", "2026-07-21T02:13:19Z", "2099-01-01T00:00:00Z"]
        {
            assert!(parse(bad, now).unwrap_err().what().contains(bad), "{bad}");
        }
    }
}
