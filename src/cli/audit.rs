//! `mimeo audit`.

use anyhow::Result;
use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::client::{Client, escape};
use super::output::{Output, local, table};
use crate::admin::types::{AuditEntry, AuditList};
use crate::env::Env;

/// Entries that are shown if nothing is said.
const TAIL: usize = 50;

#[derive(Args)]
pub(super) struct Audit {
    /// Only from then on: a time (RFC 3339) or how long ago (2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
    /// Only so many, the newest [default: 50, with --since all that there are, up to 10000]
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// The time that is meant, as RFC 3339.
fn since(text: &str) -> Result<String, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    let ago: SignedDuration =
        days(text).or_else(|| text.parse().ok()).ok_or("write a time such as 2026-07-21T08:00:00Z, or 2h")?;
    let now = Timestamp::from_second(Env::real().clock.now().secs).map_err(|e| e.to_string())?;
    now.checked_sub(ago).map(|time| time.to_string()).map_err(|e| e.to_string())
}

/// `7d`, which is no span of one length in every calendar, but here.
fn days(text: &str) -> Option<SignedDuration> {
    let days: i64 = text.strip_suffix('d')?.parse().ok()?;
    days.checked_mul(24).map(SignedDuration::from_hours)
}

pub(super) async fn run(audit: Audit, client: &mut Client, output: &mut Output) -> Result<()> {
    let Audit { since, tail } = audit;
    let tail = tail.or(since.is_none().then_some(TAIL));
    let mut query: Vec<_> = since.map(|since| format!("since={}", escape(&since))).into_iter().collect();
    query.extend(tail.map(|tail| format!("tail={tail}")));
    let list: AuditList = client.get(&format!("/v1/audit?{}", query.join("&"))).await?;
    output.show(&list, show)
}

fn show(list: &AuditList) -> String {
    let row = |entry: &AuditEntry| {
        let outcome = entry.error.as_ref().map_or_else(|| entry.outcome.clone(), |why| format!("failed: {why}"));
        vec![
            local(&entry.time),
            entry.who.clone(),
            entry.from.clone(),
            entry.action.clone(),
            entry.request.to_string(),
            entry.operation.clone().unwrap_or_default(),
            outcome,
        ]
    };
    table(&["TIME", "WHO", "FROM", "ACTION", "REQUEST", "OPERATION", "OUTCOME"], list.entries.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(since("2026-07-21T10:00:00+02:00").unwrap(), "2026-07-21T08:00:00Z");
        assert!(since("2h").unwrap() > since("7d").unwrap());
        assert!(since("yesterday").is_err() && since("d").is_err());
    }
}
