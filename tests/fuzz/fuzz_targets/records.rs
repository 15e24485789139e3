//! The records of the container, each parsed alone.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::records(data));
