//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_oci::runtime::Spec;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(spec) = serde_json::from_slice::<Spec>(bytes) {
        let text = serde_json::to_vec(&spec).expect("a configuration prints");
        let _: Spec = serde_json::from_slice(&text).expect("what was printed parses");
    }
});
