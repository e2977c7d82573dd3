//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_oci::runtime::LinuxSeccomp;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) {
        let _ = wharf_seccomp::compile(&profile);
    }
});
