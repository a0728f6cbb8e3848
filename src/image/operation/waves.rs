//! Which clones are in which wave.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::labels::Selector;
use crate::image::record::{CloneRecord, ExportId};

/// Waves of one operation.
pub const MAX_WAVES: usize = 128;

/// Which of the clones that are meant, and were in no wave before, are in a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveSpec {
    /// The next so many, by name.
    Count(usize),
    /// The next by name, until so many hundredths of all that are meant were in a wave, rounded up: as a
    /// rollout to 1 %, 10 %, 50 % is read.
    Percent(u8),
    /// Those whose labels match.
    Select(Selector),
}

impl FromStr for WaveSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("wave {text:?}"))
                .remedy("write a number of clones from 1, N% from 1% to 100%, or labels: k=v, k!=v, k, !k")
        };
        let percent = text.strip_suffix('%');
        let digits = percent.unwrap_or(text);
        if percent.is_none() && (digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())) {
            return text.parse().map(Self::Select).map_err(|e: Error| bad().because(e));
        }
        match (percent, digits.parse::<usize>()) {
            (Some(_), Ok(percent @ 1..=100)) => Ok(Self::Percent(percent as u8)),
            (None, Ok(count @ 1..)) => Ok(Self::Count(count)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for WaveSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Select(selector) => selector.fmt(f),
        }
    }
}

/// The waves that `specs` make of `clones`, and what they leave as the last one. By name within each.
/// One that nobody is left for is none; labels that match nobody are refused, because they are a mistake.
pub(in crate::image) fn split(clones: &[Arc<CloneRecord>], specs: &[WaveSpec]) -> Result<Vec<Vec<ExportId>>> {
    if specs.len() >= MAX_WAVES {
        return Err(Error::invalid(format!("{} waves", specs.len())).remedy(format!("name less than {MAX_WAVES}")));
    }
    let mut left: Vec<_> = clones.iter().collect();
    left.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut waves = Vec::new();
    for spec in specs {
        let wave = take(spec, &mut left, clones.len())?;
        waves.push(wave);
    }
    waves.push(left);
    let ids = |wave: Vec<&Arc<CloneRecord>>| wave.iter().map(|clone| clone.id).collect();
    Ok(waves.into_iter().filter(|wave| !wave.is_empty()).map(ids).collect())
}

/// The clones of one wave, out of those that are `left` of `all`.
fn take<'a>(spec: &WaveSpec, left: &mut Vec<&'a Arc<CloneRecord>>, all: usize) -> Result<Vec<&'a Arc<CloneRecord>>> {
    let count = match spec {
        WaveSpec::Count(count) => *count,
        WaveSpec::Percent(percent) => (all * usize::from(*percent)).div_ceil(100).saturating_sub(all - left.len()),
        WaveSpec::Select(selector) => {
            let wave: Vec<_> = left.extract_if(.., |clone| selector.matches(&clone.labels)).collect();
            if wave.is_empty() {
                return Err(Error::not_found(format!("wave {spec}: no clone that is left matches"))
                    .remedy("see `mimeo clone ls --select`; a clone is in the first wave that it matches"));
            }
            return Ok(wave);
        }
    };
    Ok(left.drain(..count.min(left.len())).collect())
}
