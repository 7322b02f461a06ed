//! See `fuzz::topics`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::topics::run(data));
