//! Whole archives, through both readers, which have to agree.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::archive(data));
