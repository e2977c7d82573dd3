//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_engine::create::mounts;

fuzz_target!(|text: &str| {
    if let Ok(point) = mounts::parse_bind(text) {
        assert!(point.target.starts_with('/') && !point.target.contains("/../"));
    }
    let _ = mounts::parse_from(text);
    let _ = mounts::tmpfs_options(text);
    if let Ok(mount) = serde_json::from_str::<wharf_api_types::Mount>(text)
        && mounts::check(&mount).is_ok()
    {
        assert!(mounts::of_mount(&mount).target.starts_with('/'));
    }
});
