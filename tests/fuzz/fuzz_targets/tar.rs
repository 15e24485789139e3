//! The tar headers, read in pieces and made again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::tar(data));
