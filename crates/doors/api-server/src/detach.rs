//! The keys by which a client leaves a terminal without ending the process (`ctrl-p,ctrl-q`).

/// A text that is no key sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown character: '{0}'")]
pub struct DetachKeyError(String);

impl wharf_error::HasKind for DetachKeyError {
    fn kind(&self) -> wharf_error::Kind {
        wharf_error::Kind::Invalid
    }
}

/// A sequence of bytes and how much of it has been seen. An empty sequence never matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    seen: usize,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Not the whole sequence yet.
    Attached,
    /// The whole sequence.
    Detached,
}

/// The keys that detach where neither the request nor the daemon's configuration names others.
const DEFAULT: &str = "ctrl-p,ctrl-q";

impl DetachKeys {
    /// Parses as [`Self::parse`], where an empty text means the default keys.
    pub fn or_default(text: &str) -> Result<Self, DetachKeyError> {
        Self::parse(if text.is_empty() { DEFAULT } else { text })
    }

    /// Parses `ctrl-p,ctrl-q` and the like: single characters, `ctrl-` with a letter or one of `@ [ \ ] ^ _`, and
    /// `DEL` (moby/term `ToBytes`). An empty text is an empty sequence.
    pub fn parse(text: &str) -> Result<Self, DetachKeyError> {
        let mut sequence = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            sequence.push(key_byte(key).ok_or_else(|| DetachKeyError(key.chars().take(40).collect()))?);
        }
        Ok(Self { sequence, seen: 0 })
    }

    /// Whether nothing detaches.
    pub fn is_empty(&self) -> bool {
        self.sequence.is_empty()
    }

    /// Looks at what the client typed: gives the bytes to pass on and whether the sequence is complete. Bytes that
    /// may belong to the sequence are held back until they do not.
    pub fn scan(&mut self, bytes: &[u8]) -> (Vec<u8>, Scan) {
        if self.sequence.is_empty() {
            return (bytes.to_vec(), Scan::Attached);
        }
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == self.sequence[self.seen] {
                self.seen += 1;
                if self.seen == self.sequence.len() {
                    return (passed, Scan::Detached);
                }
                continue;
            }
            passed.extend_from_slice(&self.sequence[..self.seen]);
            self.seen = 0;
            if byte == self.sequence[0] {
                self.seen = 1;
            } else {
                passed.push(byte);
            }
        }
        (passed, Scan::Attached)
    }
}

fn key_byte(key: &str) -> Option<u8> {
    let single = |text: &str| match text.as_bytes() {
        [b] if b.is_ascii() => Some(*b),
        _ => None,
    };
    if let Some(byte) = single(key) {
        return Some(byte);
    }
    if key == "DEL" {
        return Some(127);
    }
    match single(key.strip_prefix("ctrl-")?)? {
        letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
        b'@' => Some(0),
        sign @ b'['..=b'_' => Some(sign - b'[' + 27),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_names_are_those_of_docker() {
        let bytes = |t: &str| DetachKeys::parse(t).map(|k| k.sequence);
        assert_eq!(bytes("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(bytes("a,ctrl-@,ctrl-_,DEL,ctrl-["), Ok(vec![b'a', 0, 31, 127, 27]));
        assert_eq!(bytes(""), Ok(vec![]));
        assert_eq!(bytes("zzz").expect_err("unknown").to_string(), "Unknown character: 'zzz'");
        assert!(bytes("ctrl-1").is_err() && bytes("ctrl-é").is_err() && bytes("a,,b").is_err());
    }

    #[test]
    fn a_half_typed_sequence_reaches_the_process_once_it_is_none() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").expect("keys");
        assert_eq!(keys.scan(b"ab\x10"), (b"ab".to_vec(), Scan::Attached));
        assert_eq!(keys.scan(b"c"), (b"\x10c".to_vec(), Scan::Attached));
        assert_eq!(keys.scan(b"\x10"), (vec![], Scan::Attached));
        assert_eq!(keys.scan(b"\x11rest"), (vec![], Scan::Detached));
    }

    #[test]
    fn the_first_key_typed_twice_still_detaches() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").expect("keys");
        assert_eq!(keys.scan(b"\x10\x10\x11"), (b"\x10".to_vec(), Scan::Detached));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            let _ = DetachKeys::parse(&text);
        }

        #[test]
        fn nothing_is_lost_or_made_up(chunks in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..8), 0..8)) {
            let mut keys = DetachKeys { sequence: vec![1, 2, 1, 3], seen: 0 };
            let mut passed = Vec::new();
            let mut given = Vec::new();
            for chunk in &chunks {
                let (p, scan) = keys.scan(chunk);
                passed.extend(p);
                given.extend_from_slice(chunk);
                if scan == Scan::Detached {
                    prop_assert!(given.starts_with(&passed));
                    return Ok(());
                }
            }
            passed.extend_from_slice(&keys.sequence[..keys.seen]);
            prop_assert_eq!(passed, given);
        }
    }
}
