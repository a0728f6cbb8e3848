//! Which clones are in which wave.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::labels::Selector;
use crate::image::names::check_name;
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
    /// Those with these names.
    Names(Vec<String>),
}

/// What a list of names begins with. No label has a colon.
const CLONES: &str = "clones:";

impl FromStr for WaveSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("wave {text:?}")).remedy(
                "write a number of clones from 1, N% from 1% to 100%, labels (k=v, k!=v, k, !k), or clones:NAME,NAME",
            )
        };
        if let Some(names) = text.strip_prefix(CLONES) {
            let names: Vec<_> = names.split(',').map(str::to_owned).collect();
            return if names.iter().all(|name| check_name("clone", name).is_ok()) {
                Ok(Self::Names(names))
            } else {
                Err(bad())
            };
        }
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
            Self::Names(names) => write!(f, "{CLONES}{}", names.join(",")),
        }
    }
}

/// The waves that `specs` make of `clones`, and what they leave as the last one. By name within each.
/// One that nobody is left for is none; labels that match nobody are refused, and so are names of clones that
/// are not meant at all, because they are a mistake.
pub(in crate::image) fn split(clones: &[Arc<CloneRecord>], specs: &[WaveSpec]) -> Result<Vec<Vec<ExportId>>> {
    if specs.len() >= MAX_WAVES {
        return Err(Error::invalid(format!("{} waves", specs.len())).remedy(format!("name less than {MAX_WAVES}")));
    }
    let mut left: Vec<_> = clones.iter().collect();
    left.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut waves = Vec::new();
    for spec in specs {
        let wave = take(spec, &mut left, clones)?;
        waves.push(wave);
    }
    waves.push(left);
    let ids = |wave: Vec<&Arc<CloneRecord>>| wave.iter().map(|clone| clone.id).collect();
    Ok(waves.into_iter().filter(|wave| !wave.is_empty()).map(ids).collect())
}

/// The clones of one wave, out of those that are `left` of `all`.
fn take<'a>(
    spec: &WaveSpec,
    left: &mut Vec<&'a Arc<CloneRecord>>,
    clones: &'a [Arc<CloneRecord>],
) -> Result<Vec<&'a Arc<CloneRecord>>> {
    let all = clones.len();
    let count = match spec {
        WaveSpec::Names(names) => return take_named(names, left, clones),
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

fn take_named<'a>(
    names: &[String],
    left: &mut Vec<&'a Arc<CloneRecord>>,
    clones: &[Arc<CloneRecord>],
) -> Result<Vec<&'a Arc<CloneRecord>>> {
    let wanted: HashSet<_> = names.iter().map(String::as_str).collect();
    let wave: Vec<_> = left.extract_if(.., |clone| wanted.contains(&*clone.name)).collect();
    if wave.len() < wanted.len() {
        let meant: HashSet<_> = clones.iter().map(|clone| &*clone.name).collect();
        if let Some(other) = names.iter().find(|name| !meant.contains(name.as_str())) {
            return Err(Error::not_found(format!(
                "a wave names clone {other:?}, which is not among those that are meant"
            ))
            .remedy("name clones of the image that --select, --clone and --percent leave in"));
        }
    }
    Ok(wave)
}

#[cfg(test)]
pub(in crate::image) mod tests {
    use super::*;
    use crate::env::Time;
    use crate::image::Labels;
    use crate::image::record::{ImageId, View};
    use crate::overlay::OverlayId;

    /// By name the other way round than by id.
    pub(in crate::image) fn clones(count: u64) -> Vec<Arc<CloneRecord>> {
        let one = |n: u64| CloneRecord {
            id: ExportId(n),
            name: format!("desk-{:03}", count - n).into(),
            image: ImageId(1),
            created: Time::new(1, 0),
            labels: Arc::new(Labels::parse([format!("mod3={}", n % 3)]).unwrap()),
            view: View::of(1, 1, OverlayId(n)),
            pins: Vec::new(),
            switched: Time::new(1, 0),
            turns: Vec::new(),
            loose: Vec::new(),
            export: Arc::default(),
            quota: None,
            policy: Arc::default(),
            lagging: None,
            staged: None,
            depth: 0,
        };
        (0..count).map(|n| Arc::new(one(n))).collect()
    }

    fn sizes(count: u64, specs: &[&str]) -> Vec<usize> {
        let specs: Vec<WaveSpec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        split(&clones(count), &specs).unwrap().iter().map(Vec::len).collect()
    }

    #[test]
    fn waves_are_read_as_they_are_written() {
        for text in ["1", "5000", "1%", "100%", "pool=a,!old", "canary", "clones", "clones:a", "clones:a-1,b.c"] {
            assert_eq!(text.parse::<WaveSpec>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "0",
            "0%",
            "101%",
            "-1",
            "%",
            "1.5%",
            "a b",
            "99999999999999999999",
            "clones:",
            "clones:a,",
            "clones:a b",
        ] {
            assert!(bad.parse::<WaveSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_the_waves_leave_is_the_last_one() {
        assert_eq!(sizes(10, &[]), [10]);
        assert_eq!(sizes(10, &["1", "3"]), [1, 3, 6]);
        assert_eq!(sizes(10, &["10"]), [10]);
        assert_eq!(sizes(10, &["mod3=1", "mod3=0"]), [3, 4, 3]);
    }

    #[test]
    fn percentages_are_of_all_and_count_what_was_before() {
        assert_eq!(sizes(1000, &["1%", "10%", "50%"]), [10, 90, 400, 500]);
        assert_eq!(sizes(7, &["50%"]), [4, 3], "rounded up");
        assert_eq!(sizes(10, &["4", "50%"]), [4, 1, 5]);
        assert_eq!(sizes(10, &["6", "50%", "100%"]), [6, 4], "a wave of nobody is none");
    }

    #[test]
    fn each_clone_is_in_one_wave_by_name() {
        let specs = ["mod3=2", "2", "50%"].map(|spec| spec.parse().unwrap());
        let waves = split(&clones(20), &specs).unwrap();
        assert!(waves.iter().all(|wave| wave.is_sorted_by(|a, b| a.0 > b.0)), "{waves:?}");
        let mut all = waves.concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).map(ExportId).collect::<Vec<_>>());
    }

    #[test]
    fn names_are_a_wave_of_those_that_are_left() {
        assert_eq!(sizes(5, &["clones:desk-003,desk-001,desk-003", "1"]), [2, 1, 2]);
        assert_eq!(sizes(5, &["2", "clones:desk-001,desk-004"]), [2, 1, 2], "the first was in the wave before");
        let specs = ["clones:desk-001,other"].map(|spec| spec.parse().unwrap());
        let refused = split(&clones(5), &specs).unwrap_err();
        assert!(refused.what().contains("\"other\""), "{refused}");
    }

    #[test]
    fn labels_that_match_nobody_are_a_mistake() {
        let specs = ["mod3=2", "mod3=2"].map(|spec| spec.parse().unwrap());
        let refused = split(&clones(20), &specs).unwrap_err();
        assert!(refused.what().contains("mod3=2"), "{refused}");
        assert!(split(&clones(200), &vec![WaveSpec::Count(1); MAX_WAVES]).is_err());
    }
}
