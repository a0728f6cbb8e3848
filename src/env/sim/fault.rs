//! When calls fail, and the dice that say how.

use std::io;

use rustix::io::Errno;

use crate::env::{Rng, SeededRng};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `EIO`
    Io,
    /// `ENOSPC`
    NoSpace,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => Errno::IO.into(),
            Self::NoSpace => Errno::NOSPC.into(),
        }
    }
}

/// Counts mutating calls and picks those that fail.
#[derive(Clone, Default)]
pub(super) struct Faults {
    pub mutations: u64,
    pub syncs: u64,
    /// Calls that still succeed before one fails.
    fail: Option<(u64, Fault)>,
    /// Calls that still succeed before all fail.
    halt: Option<u64>,
    halted: bool,
}

impl Faults {
    pub fn fail_after(&mut self, n: u64, fault: Fault) {
        self.fail = Some((n, fault));
    }

    pub fn halt_after(&mut self, n: u64) {
        self.halt = Some(n);
    }

    /// The power is back; the counts go on.
    pub fn clear(&mut self) {
        *self = Self { mutations: self.mutations, syncs: self.syncs, ..Self::default() };
    }

    /// Fails while the disk is halted.
    pub fn alive(&self) -> io::Result<()> {
        if self.halted { Err(Fault::Io.error()) } else { Ok(()) }
    }

    /// Count a mutating call, or say why it fails.
    pub fn strike(&mut self) -> io::Result<()> {
        self.alive()?;
        if countdown(self.halt.as_mut()) {
            self.halted = true;
            return self.alive();
        }
        if countdown(self.fail.as_mut().map(|(left, _)| left)) {
            return self.fail.take().map_or(Ok(()), |(_, fault)| Err(fault.error()));
        }
        self.mutations += 1;
        Ok(())
    }
}

/// Whether the time has come.
fn countdown(left: Option<&mut u64>) -> bool {
    match left {
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// Repeatable choices.
pub(super) struct Dice(SeededRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SeededRng::new(seed))
    }

    /// A number in `0..n`; `n` is not 0.
    pub fn below(&self, n: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        // Less than n, so it fits.
        (u64::from_le_bytes(bytes) % n as u64) as usize
    }

    pub fn coin(&self) -> bool {
        self.below(2) == 0
    }

    /// How much of `len` is there: often nothing or all, else anything between.
    pub fn part(&self, len: usize) -> usize {
        match self.below(4) {
            0 => 0,
            1 => len,
            _ => self.below(len + 1),
        }
    }

    pub fn fill(&self, buf: &mut [u8]) {
        self.0.fill(buf);
    }
}
