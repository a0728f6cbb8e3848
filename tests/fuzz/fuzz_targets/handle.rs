//! A file handle.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mimeo::nfs::fuzz::handle(bytes));
