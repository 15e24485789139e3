//! Random numbers for names, samples and pauses.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that nobody foresees: the standard library seeds its hash maps from the random numbers
/// of the operating system. Good enough for names that nobody else has, and not for keys.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
