//! Archives with one wrong structure under digests that are all right again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::resealed(data));
