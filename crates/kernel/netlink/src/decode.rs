//! Decoding of netlink messages: never panics, whatever the bytes.

use crate::NetlinkError;
use crate::encode::{HEADER, NESTED, align};

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message type.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request that it answers; 0 for events.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Iterates over the messages of a datagram; ends after the first malformed one.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

/// See [`messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some(header) = rest.get(..HEADER) else {
            return Some(Err(NetlinkError::Malformed("short message header")));
        };
        let length = u32_at(header, 0) as usize;
        let Some(payload) = rest.get(HEADER..length) else {
            return Some(Err(NetlinkError::Malformed("message length")));
        };
        self.rest = rest.get(align(length)..).unwrap_or_default();
        Some(Ok(Message { kind: u16_at(header, 4), flags: u16_at(header, 6), sequence: u32_at(header, 8), payload }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, without the flag bits.
    pub kind: u16,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as a number in host byte order; `None` if it is too short.
    pub fn u32(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value.get(..4)?.try_into().ok()?))
    }

    /// The value as a number in network byte order.
    pub fn be32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.get(..4)?.try_into().ok()?))
    }

    /// The value as a 64-bit number in network byte order.
    pub fn be64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.value.get(..8)?.try_into().ok()?))
    }

    /// The value up to its first NUL, as text; other bytes than UTF-8 are replaced.
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|b| *b == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// The attributes in the value.
    pub fn nested(&self) -> Attributes<'a> {
        attributes(self.value)
    }
}

/// Iterates over attributes; stops at the first malformed one, as the kernel's own parsers of trailing bytes do.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

/// See [`attributes`].
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let rest = std::mem::take(&mut self.rest);
        let header = rest.get(..4)?;
        let length = usize::from(u16_at(header, 0));
        let value = rest.get(4..length)?;
        self.rest = rest.get(align(length)..).unwrap_or_default();
        Some(Attribute { kind: u16_at(header, 2) & !(NESTED | 0x4000), value })
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Requests;

    #[test]
    fn what_is_encoded_decodes_again() {
        let mut requests = Requests::new();
        requests.begin("one", 16, 0x400);
        requests.put(&[1; 16]);
        requests.attr_text(3, "eth0");
        requests.nest(18, |r| r.attr_u32(1, 7));
        requests.begin("two", 17, 0);
        let bytes = requests.seal(40, |_| true).to_vec();
        let got: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
        assert_eq!(got.len(), 2);
        assert_eq!((got[0].kind, got[0].flags, got[0].sequence), (16, 0x405, 40));
        assert_eq!((got[1].kind, got[1].sequence, got[1].payload), (17, 41, &[][..]));
        let attrs: Vec<_> = attributes(&got[0].payload[16..]).collect();
        assert_eq!(attrs[0].text(), "eth0");
        assert_eq!(attrs[1].nested().next().and_then(|a| a.u32()), Some(7));
    }

    #[test]
    fn messages_shorter_or_longer_than_their_length_are_malformed() {
        let message = |length: u32| {
            let mut bytes = vec![0u8; 20];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        for length in [0, 1, 15, 21, u32::MAX] {
            let bytes = message(length);
            let got: Vec<_> = messages(&bytes).collect();
            assert_eq!(got.len(), 1, "{length}");
            assert!(got[0].is_err(), "{length}");
        }
        assert!(messages(&[0; 3]).next().unwrap().is_err());
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics_and_ends(bytes in proptest::collection::vec(0u8.., 0..300)) {
            for message in messages(&bytes).flatten() {
                for attribute in attributes(message.payload) {
                    let _ = (attribute.u32(), attribute.be32(), attribute.be64(), attribute.text());
                    proptest::prop_assert!(attribute.nested().count() <= bytes.len());
                }
            }
        }
    }
}
