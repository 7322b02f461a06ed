//! See `fuzz::kafka_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::kafka_answers::run(data));
