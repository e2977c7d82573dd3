//! Dockerfiles with their heredocs, mounts and checks: never a panic or a hang.
#![no_main]

use libfuzzer_sys::fuzz_target;

use wharf_dockerfile::{Dockerfile, logical_lines, parse_mount, split_words};

fuzz_target!(|bytes: &[u8]| {
    let _ = Dockerfile::parse(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = logical_lines(bytes);
    let _ = split_words(&text, '\\');
    let _ = parse_mount(&text);
});
