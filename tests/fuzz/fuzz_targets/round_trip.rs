//! Images of any blocks, packed and read back by both readers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::round_trip(data));
