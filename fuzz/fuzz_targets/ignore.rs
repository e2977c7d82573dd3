//! Ignore files: whatever the patterns are, matching ends, and an exception never brings back what it does not fit.
#![no_main]

use libfuzzer_sys::fuzz_target;

use wharf_dockerfile::ignore::{Patterns, clean, go_match, read};

fuzz_target!(|input: (String, String)| {
    let (file, path) = input;
    let list = read(&file);
    let path = clean(&path);
    if let Ok(patterns) = Patterns::new(&list) {
        let matched = patterns.matches(&path);
        assert!(!(matched && patterns.is_empty()), "nothing matches no pattern");
    }
    let _ = go_match(&file, &path);
});
