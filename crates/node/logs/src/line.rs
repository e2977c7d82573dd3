//! Cutting a stream into messages: at newlines, and every 16 KiB of a longer line, as Docker's copier does.

/// The longest message. Source: moby `daemon/logger/copier.go`, `defaultBufSize`.
pub(crate) const MAX: usize = 16 * 1024;

/// The unterminated rest of one stream.
#[derive(Debug, Default)]
pub(crate) struct Line {
    rest: Vec<u8>,
}

impl Line {
    /// Takes a chunk; every message that is complete goes to `emit`, newline included.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], mut emit: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            let window = &chunk[..chunk.len().min(MAX - self.rest.len())];
            let end = match memchr::memchr(b'\n', window) {
                Some(at) => at + 1,
                None if self.rest.len() + window.len() == MAX => window.len(),
                None => {
                    self.rest.extend_from_slice(window);
                    return;
                }
            };
            self.rest.extend_from_slice(&chunk[..end]);
            emit(&self.rest);
            // Capacity is given back: an idle shim should be small.
            self.rest = Vec::new();
            chunk = &chunk[end..];
        }
        while !chunk.is_empty() {
            let window = &chunk[..chunk.len().min(MAX)];
            let end = match memchr::memchr(b'\n', window) {
                Some(at) => at + 1,
                None if window.len() == MAX => MAX,
                None => {
                    self.rest.extend_from_slice(window);
                    return;
                }
            };
            emit(&chunk[..end]);
            chunk = &chunk[end..];
        }
    }

    /// What was fed and not yet emitted.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes the rest at the end of the stream.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut line, mut out) = (Line::default(), Vec::new());
        for chunk in chunks {
            line.feed(chunk, |m| out.push(m.to_vec()));
        }
        (out, line.take())
    }

    #[test]
    fn lines_are_cut_at_newlines_and_the_rest_is_kept() {
        let (messages, rest) = cut(&[b"a\nb", b"c\n\nd"]);
        assert_eq!(messages, [b"a\n".to_vec(), b"bc\n".to_vec(), b"\n".to_vec()]);
        assert_eq!(rest, b"d");
    }

    #[test]
    fn a_line_of_16_kib_and_its_newline_are_two_messages_as_in_docker() {
        let mut text = vec![b'y'; MAX];
        text.push(b'\n');
        let (messages, rest) = cut(&[&text]);
        assert_eq!((messages[0].len(), messages[1].as_slice(), rest.len()), (MAX, b"\n".as_slice(), 0));
    }

    proptest::proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(lens in proptest::collection::vec((0usize..40_000, 1usize..5000), 1..6)) {
            let mut text = Vec::new();
            for (n, (len, _)) in lens.iter().enumerate() {
                text.extend(std::iter::repeat_n(b'a' + n as u8, *len));
                text.push(b'\n');
            }
            let whole = cut(&[&text]);
            let mut chunks: Vec<&[u8]> = Vec::new();
            let mut left = text.as_slice();
            for (_, size) in lens.iter().cycle() {
                if left.is_empty() { break; }
                let (head, tail) = left.split_at(left.len().min(*size));
                chunks.push(head);
                left = tail;
            }
            proptest::prop_assert_eq!(cut(&chunks), whole);
        }
    }
}
