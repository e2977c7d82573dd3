//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_forward::{decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((value, used))) = decode(bytes) {
        assert!(used <= bytes.len());
        let mut again = Vec::new();
        encode(&mut again, &value);
        assert_eq!(decode(&again).map(|v| v.map(|(v, _)| v)), Ok(Some(value)));
    }
});
