//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_api_types::ContainerCreateRequest;

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<ContainerCreateRequest>(bytes);
});
