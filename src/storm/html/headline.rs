//! What a page begins with: what was compared, who was faster, what a reader has to know before the figures.

use std::fmt::Write as _;

use super::{Runs, colour, escaped, key};
use crate::storm::figures::{HEADLINES, Headline, grouped};
use crate::storm::report::Report;

/// A generator that is busier than this was perhaps the slower side.
const SATURATED: f64 = 0.9;

pub fn put(page: &mut String, runs: Runs<'_>) {
    let _ = write!(
        page,
        "<h1>{}</h1><p class=\"facts\">{}</p>",
        title(runs),
        escaped(&common_facts(runs).join(" \u{b7} "))
    );
    if let Some(lead) = lead(runs) {
        let _ = write!(page, "<p class=\"lead\">{lead}</p>");
    }
    notes(page, runs);
    if runs.len() > 1 {
        let first = escaped(&runs[0].facts.name);
        let _ = write!(page, "<p class=\"facts\">\u{d7}: times the figure of {first}</p>");
    }
    page.push_str("<div class=\"grid\">");
    HEADLINES.iter().for_each(|headline| card(page, headline, runs));
    page.push_str("</div>");
}

/// Of all runs together.
pub fn title(runs: Runs<'_>) -> String {
    let clients: Vec<u32> = runs.iter().map(|report| report.facts.clients).collect();
    match clients[..] {
        [1] => "Boot storm of one client".to_owned(),
        [first, ..] if clients.iter().all(|clients| *clients == first) => {
            format!("Boot storm of {} clients", grouped(f64::from(first)))
        }
        _ => "Boot storms".to_owned(),
    }
}

/// A fact of a run, with its name where it does not speak for itself.
type Fact = (&'static str, fn(&Report) -> String);

/// What a run was; what is the same in all runs stands above them, the rest in a table.
const FACTS: [Fact; 6] = [
    ("load", |report| report.facts.load.clone()),
    ("clients", |report| match report.facts.clients {
        1 => "1 client".to_owned(),
        clients => format!("{} clients", grouped(f64::from(clients))),
    }),
    ("pace", |report| {
        let facts = &report.facts;
        let speed = match facts.speed {
            None => ", no pauses".to_owned(),
            Some(1.0) => String::new(),
            Some(speed) => format!(" at {speed} times the speed"),
        };
        let duration = facts.duration_secs.map_or_else(String::new, |secs| format!(", for {secs} s"));
        format!("{} loop{speed}{duration}", facts.pace)
    }),
    ("start", |report| match &*report.facts.ramp {
        "all" => "all started at once".to_owned(),
        ramp => format!("started {ramp}"),
    }),
    ("verified", |report| match report.verified {
        true => "every byte compared".to_owned(),
        false => "bytes not compared".to_owned(),
    }),
    ("seed", |report| format!("seed {}", report.facts.seed)),
];

fn is_common(fact: &Fact, runs: Runs<'_>) -> bool {
    runs.iter().all(|report| fact.1(report) == fact.1(&runs[0]))
}

fn common_facts(runs: Runs<'_>) -> Vec<String> {
    FACTS.iter().filter(|fact| is_common(fact, runs)).map(|(_, of)| of(&runs[0])).collect()
}

/// Those that differ.
pub fn own_facts(runs: Runs<'_>) -> impl Iterator<Item = &'static Fact> {
    FACTS.iter().filter(move |fact| !is_common(fact, runs))
}

/// One sentence: when the last client had booted.
fn lead(runs: Runs<'_>) -> Option<String> {
    let times: Option<Vec<String>> = runs
        .iter()
        .map(|report| {
            let all = report.boots.clients_booted == u64::from(report.facts.clients);
            let last = report.boots.last_secs.filter(|_| all)?;
            Some(format!("<b>{last:.1} s</b> ({})", escaped(&report.facts.name)))
        })
        .collect();
    let mut times = times?;
    let last = times.pop()?;
    let all = if times.is_empty() { last } else { format!("{} and {last}", times.join(", ")) };
    let who = if runs[0].facts.clients == 1 { "The client" } else { "The last client" };
    Some(format!("{who} had booted after {all}."))
}

fn notes(page: &mut String, runs: Runs<'_>) {
    for report in runs {
        let name = escaped(&report.facts.name);
        let boots = &report.boots;
        let mut note = |class: &str, text: String| {
            let _ = write!(page, "<p class=\"note{class}\"><b>{name}:</b> {text}</p>");
        };
        if report.bytes_wrong > 0 {
            note(" bad", format!("{} of the bytes that were read are wrong.", grouped(report.bytes_wrong as f64)));
        }
        if boots.clients_failed > 0 {
            note(" bad", format!("{} clients gave up.", grouped(boots.clients_failed as f64)));
        }
        if !report.errors.is_empty() {
            note(
                "",
                format!(
                    "{} calls were answered otherwise than recorded, or not at all; see below.",
                    report.errors_total()
                ),
            );
        }
        if report.interrupted {
            note("", "interrupted: the figures are those until then.".to_owned());
        }
        if let Some(busy) = report.generator_busy().filter(|busy| *busy > SATURATED) {
            let busy = (busy * 100.0).min(100.0);
            note(
                "",
                format!(
                    "the load generator was busy {busy:.0} % of its time: the server may be faster than it shows here."
                ),
            );
        }
    }
}

/// A figure of all runs, as bars.
fn card(page: &mut String, headline: &Headline, runs: Runs<'_>) {
    let values: Vec<Option<f64>> = runs.iter().map(headline.value).collect();
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let better = if headline.more_is_better { "more is better" } else { "less is better" };
    let _ = write!(page, "<div class=\"card\"><h3>{}<small>{better}</small></h3>", headline.name);
    for (i, (report, value)) in runs.iter().zip(&values).enumerate() {
        let name = escaped(&report.facts.name);
        let _ = write!(page, "<div class=\"bar\"><span class=\"of\">{}{name}</span>", key(i));
        let Some(value) = value else {
            page.push_str("<span class=\"all\"><span class=\"times\">not measured</span></span></div>");
            continue;
        };
        let width = value / most * 55.0;
        let times = times(i, *value, values[0]);
        let text = (headline.text)(*value);
        let _ = write!(
            page,
            "<span class=\"all\"><span class=\"fill\" style=\"width:{width:.1}%;background:{}\"></span>{text}\
             <span class=\"times\">{times}</span></span></div>",
            colour(i)
        );
    }
    page.push_str("</div>");
}

/// How a figure is to that of the first run.
fn times(i: usize, value: f64, first: Option<f64>) -> String {
    match first.filter(|first| i > 0 && *first > 0.0) {
        Some(first) => format!("\u{d7} {}", factor(value / first)),
        None => String::new(),
    }
}

fn factor(value: f64) -> String {
    match value {
        v if v >= 10.0 => grouped(v),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}
