//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_api_types::Filters;

fuzz_target!(|text: &str| {
    if let Ok(filters) = Filters::parse(text) {
        let _ = Filters::parse(&filters.to_json()).expect("what was printed parses");
    }
});
