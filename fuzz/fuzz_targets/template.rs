#![no_main]
//! `cargo +nightly fuzz run template -- -max_total_time=60`

#[path = "../entries.rs"]
#[allow(dead_code, reason = "each target feeds one of them")]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::template(bytes));
