//! Randomness: keys, seeds, salts.

use std::sync::Mutex;

pub trait Rng: Send + Sync + 'static {
    /// Fill `buf` with unpredictable bytes.
    fn fill(&self, buf: &mut [u8]);
}

/// The operating system's generator.
pub struct OsRng;

impl Rng for OsRng {
    #[allow(clippy::disallowed_methods, reason = "this is where randomness comes from")]
    fn fill(&self, buf: &mut [u8]) {
        // No key is better than a guessable one: without randomness nothing may start.
        getrandom::fill(buf).unwrap_or_else(|e| panic!("the operating system gives no random bytes: {e}"));
    }
}

/// Repeatable bytes from a seed, for tests. Not secret.
pub struct SeededRng(Mutex<blake3::OutputReader>);

impl SeededRng {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof()))
    }
}

impl Rng for SeededRng {
    fn fill(&self, buf: &mut [u8]) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill(buf);
    }
}
