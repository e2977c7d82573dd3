//! Conformance of an OCI runtime's command: the runtime specification 1.3 and runc's command line, as small cases.
//!
//! They run against the program that `WHARF_RUNTIME` names, by default our own; `scripts/conformance PROGRAM` runs them on another one and
//! leaves out what `differences.txt` says of it, with the reasons. A case that runc and crun both fail is wrong.

#![allow(missing_docs)]

mod attacks;
mod bad_input;
mod bundle;
mod commands;
mod inside;
mod life;
mod notify;
mod rootless;
mod specification;
mod systemd;
mod weakened;

/// Lines `runtime test reason`: what other runtimes do otherwise.
const DIFFERENCES: &str = include_str!("differences.txt");

#[test]
fn every_listed_difference_is_of_a_case_that_exists() {
    let sources = [
        include_str!("attacks.rs"),
        include_str!("bad_input.rs"),
        include_str!("commands.rs"),
        include_str!("inside.rs"),
        include_str!("life.rs"),
        include_str!("notify.rs"),
        include_str!("rootless.rs"),
        include_str!("specification.rs"),
        include_str!("systemd.rs"),
    ]
    .concat();
    for line in DIFFERENCES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (runtime, test) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert!(matches!(runtime, "runc" | "crun"), "{line}");
        assert!(sources.contains(&format!("fn {test}()")), "{line}");
        assert!(words.count() > 2, "a reason is given: {line}");
    }
}
