//! When each client starts.

use std::str::FromStr;
use std::time::Duration;

use rand::Rng;
use rand_distr::{Distribution, Exp, Normal};

use super::dice::Dice;
use crate::error::{Error, Result};

/// Longest ramp.
const MAX_RAMP_SECS: f64 = 24.0 * 3600.0;

/// The shape of the arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ramp {
    /// All at once: a host comes back, and everything on it.
    All,
    /// Independent of each other, all of them in `over` on average: a Poisson process.
    Poisson { over: Duration },
    /// The start of a shift: most around the middle of `over`. Times are normal with `over / 6` as the
    /// standard deviation; the 0.3 % that fall outside are drawn again.
    Shift { over: Duration },
}

impl Ramp {
    /// When each of `clients` starts, ascending, from the start of the storm.
    pub fn starts(self, clients: u32, dice: &mut Dice) -> Vec<Duration> {
        let mut starts: Vec<Duration> = match self {
            Self::All => vec![Duration::ZERO; clients as usize],
            Self::Poisson { over } => poisson(over, clients, dice),
            Self::Shift { over } => (0..clients).map(|_| shift(over, dice)).collect(),
        };
        starts.sort_unstable();
        starts
    }
}

fn poisson(over: Duration, clients: u32, dice: &mut Dice) -> Vec<Duration> {
    let rate = f64::from(clients) / over.as_secs_f64();
    let gap = Exp::new(rate).expect("a rate above 0, as the ramp has a length");
    let mut at = 0.0;
    let next = |_| {
        at += gap.sample(dice);
        Duration::from_secs_f64(at)
    };
    (0..clients).map(next).collect()
}

fn shift(over: Duration, dice: &mut impl Rng) -> Duration {
    let secs = over.as_secs_f64();
    let normal = Normal::new(secs / 2.0, secs / 6.0).expect("a finite deviation");
    loop {
        let at = normal.sample(dice);
        if (0.0..=secs).contains(&at) {
            return Duration::from_secs_f64(at);
        }
    }
}

impl FromStr for Ramp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let over = |secs: &str| {
            let secs: f64 = secs.parse().ok().filter(|secs| (0.001..=MAX_RAMP_SECS).contains(secs))?;
            Some(Duration::from_secs_f64(secs))
        };
        let ramp = match text.split_once(':') {
            None => (text == "all").then_some(Self::All),
            Some(("poisson", secs)) => over(secs).map(|over| Self::Poisson { over }),
            Some(("shift", secs)) => over(secs).map(|over| Self::Shift { over }),
            Some(_) => None,
        };
        let refused = || Error::invalid(format!("ramp {text:?}"));
        ramp.ok_or_else(|| refused().remedy("write all, poisson:SECS or shift:SECS, with at most 86400 seconds"))
    }
}

impl std::fmt::Display for Ramp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Poisson { over } => write!(f, "poisson:{}", over.as_secs_f64()),
            Self::Shift { over } => write!(f, "shift:{}", over.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::dice;

    const OVER: Duration = Duration::from_secs(600);

    fn starts(ramp: Ramp, seed: u64) -> Vec<Duration> {
        ramp.starts(10_000, &mut dice::of(seed, dice::RAMP))
    }

    #[test]
    fn ramps_print_as_they_parse() {
        for text in ["all", "poisson:60", "shift:0.5"] {
            assert_eq!(text.parse::<Ramp>().unwrap().to_string(), text);
        }
        for bad in ["", "poisson", "poisson:0", "shift:-1", "shift:NaN", "poisson:1e9", "all:3", "linear:3"] {
            assert!(bad.parse::<Ramp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_starts() {
        for ramp in [Ramp::Poisson { over: OVER }, Ramp::Shift { over: OVER }] {
            assert_eq!(starts(ramp, 7), starts(ramp, 7));
            assert_ne!(starts(ramp, 7), starts(ramp, 8));
        }
        assert!(starts(Ramp::All, 7).iter().all(Duration::is_zero));
    }

    /// Gaps of a Poisson process have their mean for deviation; those of an even ramp would have none.
    #[test]
    fn poisson_arrivals_are_independent() {
        let starts = starts(Ramp::Poisson { over: OVER }, 1);
        let last = starts[starts.len() - 1].as_secs_f64();
        assert!((500.0..700.0).contains(&last), "all in {last} s");
        let gaps: Vec<f64> = starts.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((0.9..1.1).contains(&(deviation / mean)), "{deviation} of {mean}");
    }

    #[test]
    fn a_shift_starts_around_its_middle() {
        let starts = starts(Ramp::Shift { over: OVER }, 1);
        assert!(starts[starts.len() - 1] <= OVER);
        let middle = starts.iter().filter(|at| (200..400).contains(&at.as_secs())).count();
        assert!((6_500..7_200).contains(&middle), "{middle} of 10000 within one deviation");
    }
}
