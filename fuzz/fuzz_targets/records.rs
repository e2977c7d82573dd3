//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_proto_task::record::Record;

fuzz_target!(|bytes: &[u8]| {
    let _ = Record::parse_all(bytes);
});
