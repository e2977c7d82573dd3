//! The `local` driver's records: binary, framed on both ends so that they can be read backwards.
//!
//! ```text
//! | length u32 | stream u8 | seconds i64 | nanoseconds u32 | attrs length u16 | attrs | bytes | length u32 |
//! ```
//!
//! Integers are big-endian; `length` counts what stands between the two lengths.

use crate::Stream;
use crate::line;
use crate::record::Record;
use wharf_types::Timestamp;

const FIXED: usize = 1 + 8 + 4 + 2;

/// The longest record that is believed: a message, its attributes and the fixed part.
pub(crate) const MAX: usize = FIXED + u16::MAX as usize + line::MAX;

/// Appends one record.
pub(crate) fn encode(out: &mut Vec<u8>, stream: Stream, time: Timestamp, attrs: &str, message: &[u8]) {
    // Attributes beyond 64 KiB are left out as a whole: half a document would be unreadable.
    let attrs = if attrs.len() > usize::from(u16::MAX) { "" } else { attrs };
    let len = ((FIXED + attrs.len() + message.len()) as u32).to_be_bytes();
    out.extend_from_slice(&len);
    out.push(stream as u8);
    out.extend_from_slice(&time.seconds().to_be_bytes());
    out.extend_from_slice(&time.subsec_nanos().to_be_bytes());
    out.extend_from_slice(&(attrs.len() as u16).to_be_bytes());
    out.extend_from_slice(attrs.as_bytes());
    out.extend_from_slice(message);
    out.extend_from_slice(&len);
}

/// What stands at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A record of this many bytes.
    Record(usize),
    /// Part of a record.
    Short,
    /// No record.
    Damaged,
}

/// Reads the record at the start of `bytes`.
pub(crate) fn decode(bytes: &[u8], record: &mut Record) -> Taken {
    record.clear();
    let Some(head) = bytes.first_chunk::<4>() else { return Taken::Short };
    let len = u32::from_be_bytes(*head) as usize;
    if !(FIXED..=MAX).contains(&len) {
        return Taken::Damaged;
    }
    // Damage is told by the first bytes already: waiting for a length that was never written would lose what follows.
    let nanos = bytes.get(13..17).map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]));
    if bytes.get(4).is_some_and(|stream| !matches!(stream, 1 | 2)) || nanos.is_some_and(|n| n > 999_999_999) {
        return Taken::Damaged;
    }
    let Some(body) = bytes.get(4..4 + len) else { return Taken::Short };
    let Some(foot) = bytes.get(4 + len..8 + len) else { return Taken::Short };
    let attrs_len = usize::from(u16::from_be_bytes([body[13], body[14]]));
    let Some(message) = body.get(FIXED + attrs_len..) else { return Taken::Damaged };
    record.stream = match body[0] {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return Taken::Damaged,
    };
    if foot != head {
        return Taken::Damaged;
    }
    let mut seconds = [0; 8];
    seconds.copy_from_slice(&body[1..9]);
    let nanos = u32::from_be_bytes([body[9], body[10], body[11], body[12]]);
    record.time.push_str(&Timestamp::from_unix(i64::from_be_bytes(seconds), nanos).fixed_nanos());
    record.attrs.extend_from_slice(&body[FIXED..FIXED + attrs_len]);
    record.bytes.extend_from_slice(message);
    Taken::Record(8 + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_message_survives(message in proptest::collection::vec(proptest::num::u8::ANY, 0..2000), seconds in 0i64..4_000_000_000, nanos in 0u32..1_000_000_000) {
            let (mut out, mut record) = (Vec::new(), Record::default());
            let time = Timestamp::from_unix(seconds, nanos);
            encode(&mut out, Stream::Stderr, time, "{\"a\":\"b\"}", &message);
            proptest::prop_assert_eq!(decode(&out, &mut record), Taken::Record(out.len()));
            proptest::prop_assert_eq!(&record.bytes, &message);
            proptest::prop_assert_eq!(&record.time, &time.fixed_nanos());
            for end in 0..out.len() {
                proptest::prop_assert_eq!(decode(&out[..end], &mut record), Taken::Short);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>, len in 0u32..80) {
            let mut record = Record::default();
            decode(&bytes, &mut record);
            let mut framed = len.to_be_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            decode(&framed, &mut record);
        }
    }

    #[test]
    fn a_length_no_writer_makes_is_damage_not_a_wait_for_more() {
        assert_eq!(decode(&[0xff; 64], &mut Record::default()), Taken::Damaged);
    }
}
