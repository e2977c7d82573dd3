//! ttRPC's framing: a ten-byte header and a payload of at most 4 MiB.
//!
//! ```text
//! 0        4           8      9       10
//! | length | stream id | type | flags | payload … |      integers are big-endian
//! ```
//!
//! Source: containerd/ttrpc `PROTOCOL.md` and `channel.go`.

use wharf_error::{HasKind, Kind as ErrorKind};

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 10;

/// The longest payload that either side accepts.
pub const MAX_LEN: usize = 4 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`crate::Request`], from client to server; opens the stream.
    Request,
    /// A [`crate::Response`], from server to client; ends a unary call.
    Response,
    /// A message of a streaming call. The task service has none.
    Data,
}

/// Bytes that are no ttRPC frame. The connection cannot be used further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is above [`MAX_LEN`].
    #[error("ttrpc frame of {0} bytes exceeds the limit of {MAX_LEN}")]
    TooLong(u32),
    /// The type byte is none of 1, 2, 3.
    #[error("unknown ttrpc frame type {0}")]
    Type(u8),
}

impl HasKind for FrameError {
    fn kind(&self) -> ErrorKind {
        match self {
            FrameError::TooLong(_) => ErrorKind::TooLarge,
            FrameError::Type(_) => ErrorKind::Invalid,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes that follow.
    pub len: u32,
    /// The call; clients use odd numbers.
    pub stream: u32,
    /// What the payload is.
    pub kind: Kind,
    /// Flags of streaming calls; 0 for unary ones.
    pub flags: u8,
}

impl Header {
    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, FrameError> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = word(0);
        if len as usize > MAX_LEN {
            return Err(FrameError::TooLong(len));
        }
        let kind = match bytes[8] {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            other => return Err(FrameError::Type(other)),
        };
        Ok(Header { len, stream: word(4), kind, flags: bytes[9] })
    }

    /// Writes the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.len.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8] = match self.kind {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
        };
        bytes[9] = self.flags;
        bytes
    }
}

/// One whole frame inside a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The payload, `header.len` bytes.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first frame of a buffer; `None` means that more bytes are needed.
    pub fn take(buffer: &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        let Some(head) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(head)?;
        let payload = buffer[HEADER_LEN..].get(..header.len as usize);
        Ok(payload.map(|payload| Frame { header, payload }))
    }

    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Appends a message as one frame; a message above [`MAX_LEN`] is refused and leaves the buffer as it was.
    pub fn put(buffer: &mut Vec<u8>, stream: u32, kind: Kind, message: &impl prost::Message) -> Result<(), FrameError> {
        let len = message.encoded_len();
        if len > MAX_LEN {
            return Err(FrameError::TooLong(u32::try_from(len).unwrap_or(u32::MAX)));
        }
        buffer.extend_from_slice(&Header { len: len as u32, stream, kind, flags: 0 }.encode());
        message.encode_raw(buffer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, Request};

    #[test]
    fn a_request_frames_as_containerd_frames_it() {
        let request = Request { service: "s".into(), method: "m".into(), ..Request::default() };
        let mut bytes = Vec::new();
        Frame::put(&mut bytes, 1, Kind::Request, &request).expect("small");
        assert_eq!(bytes, b"\0\0\0\x06\0\0\0\x01\x01\0\x0a\x01s\x12\x01m");
        let frame = Frame::take(&bytes).expect("valid").expect("whole");
        assert_eq!(frame.len(), bytes.len());
        assert_eq!(Request::decode(frame.payload), Ok(request));
    }

    #[test]
    fn part_of_a_frame_asks_for_more() {
        let mut bytes = Vec::new();
        Frame::put(&mut bytes, 1, Kind::Response, &crate::Response::default()).expect("small");
        bytes[3] = 5;
        for n in 0..bytes.len() {
            assert_eq!(Frame::take(&bytes[..n]), Ok(None));
        }
    }

    #[test]
    fn cve_2022_23471_a_length_above_the_limit_is_refused_before_any_buffer_grows() {
        let head = [0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0];
        assert_eq!(Frame::take(&head), Err(FrameError::TooLong(0x0040_0001)));
        assert_eq!(Frame::take(&[0, 0, 0, 0, 0, 0, 0, 1, 9, 0]), Err(FrameError::Type(9)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(Some(frame)) = Frame::take(&bytes) {
                let _ = Request::decode(frame.payload);
                let _ = crate::Response::decode(frame.payload);
                let _ = crate::task::CreateTaskRequest::decode(frame.payload);
                let _ = crate::shim::AttachRequest::decode(frame.payload);
            }
        }

        #[test]
        fn any_header_survives_the_wire(len in 0u32..=MAX_LEN as u32, stream: u32, flags: u8) {
            let header = Header { len, stream, kind: Kind::Data, flags };
            proptest::prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }
}
