//! Headers and ends of zstd frames, with libzstd as the oracle.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::zstd_frame(data));
