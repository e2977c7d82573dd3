//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_proto_task::Frame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(frame)) = Frame::take(bytes) {
        assert!(frame.len() <= bytes.len());
    }
});
