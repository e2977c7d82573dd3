//! Attach over a websocket (RFC 6455): binary frames out, the payload of data frames in.

use std::io;

use base64::Engine;
use http::{HeaderMap, StatusCode};
use tokio::net::UnixStream;

use crate::respond::{self, Answer};
use crate::socket::Socket;

/// What RFC 6455 §1.3 appends to the client's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes read from either side at once.
const CHUNK: usize = 16 * 1024;
/// The longest control frame (RFC 6455 §5.5).
const CONTROL_LIMIT: usize = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The head that accepts a websocket; `None` if the request is no handshake of version 13.
pub fn accept_head(headers: &HeaderMap) -> Option<Vec<u8>> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let has = |name: &str, word: &str| {
        text(name).is_some_and(|v| v.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    let key = text("sec-websocket-key")?.trim();
    let sound = base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16);
    if !has("upgrade", "websocket")
        || !has("connection", "upgrade")
        || text("sec-websocket-version") != Some("13")
        || !sound
    {
        return None;
    }
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    let accept = base64::engine::general_purpose::STANDARD.encode(hash.finish());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Some(head.into_bytes())
}

/// What a request gets that is no handshake.
pub fn refusal() -> Answer {
    respond::text(StatusCode::BAD_REQUEST, "Bad Request")
}

/// Copies between a websocket and a process until one side is done. `framed` output carries stdcopy headers, which
/// are taken off: both streams are one here, as in moby.
pub async fn copy(client: &Socket, process: &UnixStream, framed: bool, stdin: bool, early: &[u8]) {
    let output = async {
        let mut demux = Demux { headers: framed, ..Demux::default() };
        let mut buf = vec![0; CHUNK];
        loop {
            match process.try_read(&mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    let payload = demux.payload(&buf[..n]);
                    if !payload.is_empty() && client.write_all(&frame(BINARY, &payload)).await.is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if process.readable().await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        if let Err(e) = client.write_all(&frame(CLOSE, &1000u16.to_be_bytes())).await {
            tracing::trace!(error = %e, "websocket client left first");
        }
    };
    tokio::select! { () = output => {}, () = input(client, process, stdin, early) => {} }
}

/// Passes the client's data on until it closes.
async fn input(client: &Socket, process: &UnixStream, stdin: bool, early: &[u8]) {
    let mut decoder = Decoder::default();
    let mut buf = vec![0; CHUNK];
    let mut chunk = early.to_vec();
    loop {
        let mut events = Vec::new();
        if decoder.feed(&chunk, &mut events).is_err() {
            // 1002: protocol error. The connection ends whether it arrives or not.
            let _ = client.write_all(&frame(CLOSE, &1002u16.to_be_bytes())).await;
            return;
        }
        for event in events {
            let alive = match event {
                Event::Data(bytes) if stdin => write_all(process, &bytes).await.is_ok(),
                Event::Data(_) => true,
                Event::Ping(bytes) => client.write_all(&frame(PONG, &bytes)).await.is_ok(),
                Event::Close => false,
            };
            if !alive {
                return;
            }
        }
        match client.try_read(&mut buf) {
            Ok(0) => return,
            Ok(n) => chunk = buf[..n].to_vec(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                chunk.clear();
                if client.readable().await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

async fn write_all(to: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// One unmasked, final frame, as servers send them.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 10);
    bytes.push(0x80 | opcode);
    match payload.len() {
        n @ 0..=125 => bytes.push(n as u8),
        n @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Data(Vec<u8>),
    Ping(Vec<u8>),
    Close,
}

/// A client that breaks the protocol.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// Takes frames apart as their bytes come. The payload of data frames is passed on at once, so that a frame of any
/// length costs no memory.
#[derive(Debug, Default)]
struct Decoder {
    header: Vec<u8>,
    opcode: u8,
    mask: [u8; 4],
    offset: usize,
    left: u64,
    in_payload: bool,
    control: Vec<u8>,
}

impl Decoder {
    fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            if !self.in_payload {
                self.header.push(bytes[0]);
                bytes = &bytes[1..];
                if !self.start()? {
                    continue;
                }
            }
            let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(n);
            bytes = later;
            self.left -= n as u64;
            let mut data = now.to_vec();
            for byte in &mut data {
                *byte ^= self.mask[self.offset % 4];
                self.offset += 1;
            }
            self.payload(data, events);
        }
        Ok(())
    }

    /// Tries to understand the header; true if it is whole.
    fn start(&mut self) -> Result<bool, Broken> {
        let h = &self.header;
        if h.len() < 2 {
            return Ok(false);
        }
        let extra = match h[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // Clients must mask (§5.1); reserved bits belong to extensions, of which none was agreed on.
        if h[1] & 0x80 == 0 || h[0] & 0x70 != 0 {
            return Err(Broken);
        }
        if h.len() < 2 + extra + 4 {
            return Ok(false);
        }
        let length = match extra {
            0 => u64::from(h[1] & 0x7f),
            _ => h[2..2 + extra].iter().fold(0u64, |n, b| n << 8 | u64::from(*b)),
        };
        let opcode = h[0] & 0x0f;
        let control = opcode >= CLOSE;
        let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        if !known || length > i64::MAX as u64 || (control && (length > CONTROL_LIMIT as u64 || h[0] & 0x80 == 0)) {
            return Err(Broken);
        }
        self.mask.copy_from_slice(&h[2 + extra..]);
        (self.opcode, self.left, self.offset, self.in_payload) = (opcode, length, 0, true);
        self.header.clear();
        self.control.clear();
        Ok(true)
    }

    fn payload(&mut self, data: Vec<u8>, events: &mut Vec<Event>) {
        let done = self.left == 0;
        self.in_payload = !done;
        if self.opcode < CLOSE {
            if !data.is_empty() {
                events.push(Event::Data(data));
            }
            return;
        }
        self.control.extend_from_slice(&data);
        if done {
            match self.opcode {
                PING => events.push(Event::Ping(std::mem::take(&mut self.control))),
                CLOSE => events.push(Event::Close),
                _ => {} // a pong needs no answer
            }
        }
    }
}

/// Takes stdcopy headers off a stream.
#[derive(Debug, Default)]
struct Demux {
    headers: bool,
    header: Vec<u8>,
    left: usize,
}

impl Demux {
    fn payload(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        if !self.headers {
            return bytes.to_vec();
        }
        let mut out = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                out.extend_from_slice(now);
                self.left -= now.len();
                bytes = later;
                continue;
            }
            self.header.push(bytes[0]);
            bytes = &bytes[1..];
            if let [_, _, _, _, a, b, c, d] = self.header[..] {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(first & 0x0f, payload);
        bytes[0] = first;
        let at = bytes.len() - payload.len();
        bytes[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        for (i, b) in bytes[at..].iter_mut().enumerate() {
            *b ^= mask[i % 4];
        }
        bytes.splice(at..at, mask);
        bytes
    }

    fn decode(chunks: &[&[u8]]) -> Result<Vec<Event>, Broken> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            decoder.feed(chunk, &mut events)?;
        }
        Ok(events)
    }

    #[test]
    fn the_handshake_is_that_of_rfc_6455() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
        let head = String::from_utf8(accept_head(&headers).expect("a handshake")).expect("text");
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        headers.insert("sec-websocket-key", http::HeaderValue::from_static("short"));
        assert_eq!(accept_head(&headers), None);
    }

    #[test]
    fn frames_split_anywhere_give_the_same_bytes() {
        let bytes = [masked(0x82, b"hello"), masked(0x89, b"p"), masked(0x02, &[7; 300]), masked(0x88, b"")].concat();
        for at in 0..bytes.len() {
            let events = decode(&[&bytes[..at], &bytes[at..]]).expect("sound");
            let data: Vec<u8> =
                events.iter().flat_map(|e| if let Event::Data(d) = e { d.clone() } else { vec![] }).collect();
            assert_eq!(data, [&b"hello"[..], &[7; 300]].concat(), "split at {at}");
            assert!(events.contains(&Event::Ping(b"p".to_vec())) && events.ends_with(&[Event::Close]));
        }
    }

    #[test]
    fn frames_against_the_protocol_end_the_connection() {
        let long_ping = masked(0x89, &[0; 126]);
        for bytes in [&b"\x82\x01x"[..], b"\xf2\x81\0\0\0\0x", b"\x83\x81\0\0\0\0x", &long_ping] {
            assert_eq!(decode(&[bytes]), Err(Broken), "{bytes:?}");
        }
    }

    #[test]
    fn stdcopy_headers_are_taken_off() {
        let mut demux = Demux { headers: true, ..Demux::default() };
        let stream = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x01!";
        let out: Vec<u8> = stream.chunks(3).flat_map(|c| demux.payload(c)).collect();
        assert_eq!(out, b"hi!");
    }

    proptest! {
        #[test]
        fn decoding_never_panics(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = decode(&chunks);
            let mut demux = Demux { headers: true, ..Demux::default() };
            for chunk in chunks {
                demux.payload(chunk);
            }
        }
    }
}
