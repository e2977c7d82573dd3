//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_distribution::challenge;

fuzz_target!(|header: &str| {
    for found in challenge::parse(header) {
        assert!(!found.scheme.is_empty());
    }
});
