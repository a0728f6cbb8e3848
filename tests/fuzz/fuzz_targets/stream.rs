//! A connection's bytes: record marks, fragments, and each record as a call.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mimeo::nfs::fuzz::stream(bytes));
