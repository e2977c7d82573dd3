//! Frames and keys.

use proptest::prelude::*;

use crate::stream::Splitter;
use crate::terminal::DetachKeys;

#[test]
fn the_keys_that_detach_are_held_back_and_found() {
    let mut k = DetachKeys::parse("").unwrap();
    assert_eq!(k.filter(b"ab"), Some(b"ab".to_vec()));
    assert_eq!(k.filter(b"x\x10"), Some(b"x".to_vec()));
    assert_eq!(k.filter(b"y"), Some(b"\x10y".to_vec()));
    assert_eq!(k.filter(b"\x10\x10\x11"), None);
    let mut k = DetachKeys::parse("ctrl-a,b").unwrap();
    assert_eq!(k.filter(b"\x01"), Some(vec![]));
    assert_eq!(k.filter(b"b"), None);
    assert_eq!(DetachKeys::parse("ctrl-1").unwrap_err().message, "Unknown character: 'ctrl-1'");
}

#[test]
fn an_error_in_the_stream_ends_the_command() {
    let mut s = Splitter::default();
    let e = s.feed(b"\x03\0\0\0\0\0\0\x04oops").unwrap_err();
    assert_eq!(e.message, "error from daemon in stream: oops");
    assert_eq!(Splitter::default().feed(b"\x07\0\0\0\0\0\0\x01x").unwrap_err().message, "Unrecognized stream: 7");
}

proptest! {
    #[test]
    fn frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        // Output and error frames would be written to the test's own streams.
        if bytes.first().is_some_and(|b| *b >= 3) {
            let _ = Splitter::default().feed(&bytes);
        }
    }

    #[test]
    fn keys_without_the_sequence_all_arrive(typed in proptest::collection::vec(0u8..16, 0..40)) {
        let mut k = DetachKeys::parse("").unwrap();
        prop_assert_eq!(k.filter(&typed), Some(typed));
    }
}
