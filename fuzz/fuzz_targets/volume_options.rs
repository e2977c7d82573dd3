//! Bytes from outside: never a panic, a hang or an effect elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_volume::{LocalOptions, MountWords, parse_size};

fuzz_target!(|text: &str| {
    let _ = MountWords::parse(text);
    let _ = parse_size(text);
    let pairs = text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let _ = LocalOptions::parse(&pairs.collect());
});
