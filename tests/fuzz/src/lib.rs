//! Properties that hold for every input, hostile ones included: one function for each target.
//!
//! The functions panic when a property does not hold. They are run by `cargo fuzz`
//! (`fuzz_targets/`) and, over seeded mutations, by `tests/core/fuzz_smoke.rs`, which includes this
//! file; so it uses nothing but amistore's public interface, zstd as an oracle, and the standard
//! library.

mod archives;
mod parsers;
mod resealing;

pub use archives::{archive, round_trip};
pub use parsers::{image_json, records, tar, zstd_frame};
pub use resealing::{SIZED_PARTS, resealed, resealing_input};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("records", records),
    ("zstd_frame", zstd_frame),
    ("tar", tar),
    ("image_json", image_json),
    ("archive", archive),
    ("resealed", resealed),
    ("round_trip", round_trip),
];

/// Inputs of a target from which mutations start.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "records" => parsers::record_seeds(),
        "zstd_frame" => parsers::frame_seeds(),
        "tar" => parsers::tar_seeds(),
        "image_json" => parsers::json_seeds(),
        "archive" => archives::archive_seeds(),
        "resealed" => resealing::seeds(),
        "round_trip" => archives::round_trip_seeds(),
        _ => Vec::new(),
    }
}

/// Reads numbers from the front of an input; behind its end all are 0, so that every input means
/// something.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.number::<1>() as u8
    }

    /// The next `N` bytes, little-endian.
    pub fn number<const N: usize>(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(N);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    /// The next `len` bytes, or fewer at the end.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
