//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_distribution::document::{self, Content};

fuzz_target!(|input: (&str, &[u8])| {
    let (kind, bytes) = input;
    if let Ok(document) = document::identify(bytes.to_vec(), kind, "input") {
        // One blob, one meaning: what was read as one kind is not read as the other.
        if let Ok(Content::Index(index)) = document.content() {
            let _ = document::choose(&index, &Default::default());
        }
    }
});
