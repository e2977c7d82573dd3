//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_netlink::{attributes, messages};

fuzz_target!(|bytes: &[u8]| {
    for message in messages(bytes).flatten() {
        std::hint::black_box(&message);
    }
    for attribute in attributes(bytes) {
        let _ = (attribute.u32(), attribute.be64(), attribute.text());
        attribute.nested().for_each(drop);
    }
});
