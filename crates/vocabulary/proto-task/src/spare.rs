//! The one message from dockerd to a shim that was started ahead (`wharf-shim --spare`).

/// Bytes of the message at most. A longer command line is given to a new process instead.
pub const MOST_BYTES: usize = 32 << 10;

/// Descriptors at most (`SCM_MAX_FD` of Linux is 253).
pub const MOST_DESCRIPTORS: usize = 64;

/// Room on the spare's own command line for the words it will show.
pub const SHOWN_BYTES: usize = 512;

/// The message: the numbers that the descriptors after the first are to get, then the words, each ended by NUL. `None` if it
/// would be too long, or a word holds a NUL.
pub fn message(numbers: &[i32], words: &[String]) -> Option<Vec<u8>> {
    let numbers = numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let mut bytes = numbers.into_bytes();
    bytes.push(0);
    for word in words {
        if word.contains('\0') {
            return None;
        }
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    (bytes.len() <= MOST_BYTES).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_end_with_nul_and_have_a_bound() {
        let words = ["--id".to_owned(), "x".to_owned()];
        assert_eq!(message(&[3, 4, 6], &words).as_deref(), Some(b"3,4,6\0--id\0x\0".as_slice()));
        assert_eq!(message(&[3], &["a".repeat(MOST_BYTES)]), None);
        assert_eq!(message(&[3], &["a\0b".to_owned()]), None);
    }
}
