//! `image.json`, as anybody may write it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amistore_fuzz::image_json(data));
