//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for ended in [false, true] {
        if let Ok(Some((status, body))) = wharf_plugin::parse_answer(bytes, ended) {
            assert!(status < 1000 && body.len() <= bytes.len());
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = wharf_plugin::Address::of_json(text);
        let _ = wharf_plugin::Address::parse(text);
    }
});
