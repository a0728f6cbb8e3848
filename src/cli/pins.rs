//! `mimeo pins`.

use anyhow::Result;
use clap::Args;
use clap::builder::NonEmptyStringValueParser as Name;
use hyper::Method;
use jiff::Timestamp;

use super::client::{Client, escape, selecting};
use super::output::{Output, count, size, table};
use crate::admin::types::{CloneInfo, DropPinsBody, PinInfo, PinList, PinsDropped};
use crate::env::Env;

#[derive(Args)]
pub(super) struct Pins {
    /// Only of clones whose labels match: k=v, k!=v, k, !k, separated by commas
    #[arg(long, value_name = "SELECTOR", group = "whose")]
    select: Option<String>,
    /// Only of these clones
    #[arg(long = "clone", value_name = "NAME", num_args = 1.., value_parser = Name::new(), group = "whose")]
    clones: Vec<String>,
    /// Drop those of these clones: files that clients hold open in these views become stale
    #[arg(long, requires = "whose")]
    drop: bool,
    /// Drop only that of this view, of the one clone that is named
    #[arg(long, value_name = "N", requires = "drop", requires = "clones")]
    view: Option<u64>,
}

pub(super) async fn run(pins: Pins, client: &mut Client, output: &mut Output) -> Result<()> {
    let Pins { select, clones, drop, view } = pins;
    if drop {
        let body = DropPinsBody { select, clones, view };
        let dropped: PinsDropped = client.send(Method::DELETE, "/v1/pins", &body).await?;
        return output.show(&dropped, |dropped| format!("dropped {}", count(dropped.pins, "pin")));
    }
    let mut list: PinList = client.get(&selecting("/v1/pins", select.as_deref())).await?;
    list.pins.retain(|pin| clones.is_empty() || clones.contains(&pin.name));
    for name in &clones {
        // Refused, if there is none.
        let _: CloneInfo = client.get(&format!("/v1/clones/{}", escape(name))).await?;
    }
    output.show(&list, show_pins)
}

fn show_pins(list: &PinList) -> String {
    let now = Timestamp::from_second(Env::real().clock.now().secs).unwrap_or_default();
    let row = |pin: &PinInfo| {
        vec![
            pin.name.clone(),
            pin.version.clone() + if pin.version_removed { " (removed)" } else { "" },
            pin.view.to_string(),
            age(since(&pin.since, now)),
            age(since(&pin.idle_since, now)),
            size(pin.bytes_held),
            pin.operation.clone(),
            pin.clients.join(" "),
        ]
    };
    let header = ["CLONE", "VERSION", ">VIEW", ">AGE", ">IDLE", ">HELD", "OPERATION", "CLIENTS"];
    table(&header, list.pins.iter().map(row))
}

/// Seconds from a time (RFC 3339) to now.
fn since(time: &str, now: Timestamp) -> u64 {
    let then = time.parse().unwrap_or(now);
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

/// `3d 4h`: the two largest units that there are.
fn age(secs: u64) -> String {
    let units = [(secs / 86_400, 'd'), (secs / 3600 % 24, 'h'), (secs / 60 % 60, 'm'), (secs % 60, 's')];
    let first = units.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let words: Vec<_> = units[first..].iter().take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        for (secs, text) in [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3725, "1h 2m"), (90_061, "1d 1h")] {
            assert_eq!(age(secs), text);
        }
    }
}
