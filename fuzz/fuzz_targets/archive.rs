//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;

use wharf_archive::{Whiteouts, extract};

fuzz_target!(|bytes: &[u8]| {
    let outer = tempfile::tempdir().expect("folder");
    std::fs::create_dir(outer.path().join("root")).expect("folder");
    let root = std::fs::File::open(outer.path().join("root")).expect("open");
    let _ = extract(&mut &bytes[..], root.into(), &[], Whiteouts::Overlay);
    let beside = std::fs::read_dir(outer.path()).expect("read").count();
    assert_eq!(beside, 1, "something was written outside the root");
});
