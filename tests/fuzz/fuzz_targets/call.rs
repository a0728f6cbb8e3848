//! One record: call header, credential, arguments of the procedure that it names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mimeo::nfs::fuzz::call(bytes));
