#![no_main]
//! See `loadline_fuzz_targets::gguf` for what is asserted.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    loadline_fuzz_targets::gguf(data);
});
