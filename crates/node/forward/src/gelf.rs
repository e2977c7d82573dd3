//! GELF 1.1 over UDP (compressed, in chunks) and TCP (moby `daemon/logger/gelf`; docs.graylog.org, "GELF").

use std::io::{self, Write};
use std::net::UdpSocket;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use wharf_logs::{Message, Remote, Stream};

use crate::forwarder::Sink;
use crate::net::{Lazy, Place};
use crate::{ForwardError, Info, host_name, line};

/// The longest datagram (moby's `ChunkSize`).
const CHUNK: usize = 1420;
/// What a chunk begins with: two magic bytes, eight of the message's id, number and count.
const CHUNK_HEAD: usize = 12;
/// Chunks of one message at most.
const CHUNKS: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip(u32),
    Zlib(u32),
    Plain,
}

enum Way {
    Udp { to: String, socket: Option<UdpSocket>, packing: Packing },
    Tcp(Lazy),
}

/// A GELF collector.
pub(crate) struct Gelf {
    way: Way,
    /// Everything of a message that does not change.
    fixed: serde_json::Map<String, serde_json::Value>,
}

impl Gelf {
    pub(crate) fn new(remote: &Remote, info: &Info) -> Result<Gelf, ForwardError> {
        let (scheme, to) = remote.get("gelf-address").split_once("://").unwrap_or_default();
        let level = remote.get("gelf-compression-level").parse::<i8>().unwrap_or(1);
        let level = u32::try_from(level).unwrap_or(6);
        let packing = match remote.get("gelf-compression-type") {
            "none" => Packing::Plain,
            "zlib" => Packing::Zlib(level),
            _ => Packing::Gzip(level),
        };
        let way = match scheme {
            "tcp" => Way::Tcp(Lazy::new(Place::Tcp(to.to_owned()))),
            _ => Way::Udp { to: to.to_owned(), socket: None, packing },
        };
        let mut fixed = serde_json::Map::new();
        let mut put = |key: &str, value: &str| drop(fixed.insert(key.to_owned(), value.into()));
        put("version", "1.1");
        put("host", &host_name());
        put("_container_id", &info.id);
        put("_container_name", &info.name);
        put("_image_id", &info.image_id);
        put("_image_name", &info.image_name);
        put("_command", &info.command);
        put("_created", &info.created);
        put("_tag", &info.tag);
        info.extra.iter().for_each(|(k, v)| put(&format!("_{k}"), v));
        Ok(Gelf { way, fixed })
    }

    fn lay_out(&self, message: &Message) -> Vec<u8> {
        let mut object = self.fixed.clone();
        let text = String::from_utf8_lossy(line(&message.bytes)).into_owned();
        object.insert("short_message".to_owned(), text.into());
        let seconds = message.time.unix_nanos().div_euclid(1_000_000) as f64 / 1000.0;
        object.insert("timestamp".to_owned(), seconds.into());
        object.insert("level".to_owned(), if message.stream == Stream::Stderr { 3 } else { 6 }.into());
        // A map of strings and numbers always serialises.
        serde_json::to_vec(&object).unwrap_or_default()
    }
}

fn pack(text: &[u8], packing: Packing) -> io::Result<Vec<u8>> {
    match packing {
        Packing::Plain => Ok(text.to_vec()),
        Packing::Gzip(level) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(text)?;
            encoder.finish()
        }
        Packing::Zlib(level) => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(text)?;
            encoder.finish()
        }
    }
}

/// Cuts a message into datagrams. `id` tells the chunks of one message from those of another.
fn chunks(packed: &[u8], id: [u8; 8]) -> Vec<Vec<u8>> {
    if packed.len() <= CHUNK {
        return vec![packed.to_vec()];
    }
    let parts: Vec<&[u8]> = packed.chunks(CHUNK - CHUNK_HEAD).collect();
    let count = parts.len();
    let chunk = |(number, part): (usize, &&[u8])| {
        let mut chunk = vec![0x1e, 0x0f];
        chunk.extend_from_slice(&id);
        chunk.extend_from_slice(&[number as u8, count as u8]);
        chunk.extend_from_slice(part);
        chunk
    };
    parts.iter().enumerate().map(chunk).collect()
}

impl Sink for Gelf {
    fn deliver(&mut self, messages: &[Message]) -> io::Result<()> {
        let all: Vec<Vec<u8>> = messages.iter().map(|m| self.lay_out(m)).collect();
        match &mut self.way {
            Way::Tcp(stream) => stream.with(|s| {
                let mut bytes = all.join(&0);
                bytes.push(0);
                s.write_all(&bytes)
            }),
            Way::Udp { to, socket, packing } => {
                if socket.is_none() {
                    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                    let fresh = UdpSocket::bind(any)?;
                    fresh.connect(to.as_str())?;
                    *socket = Some(fresh);
                }
                let Some(connected) = socket else { return Err(io::ErrorKind::NotConnected.into()) };
                for text in all {
                    let mut id = [0; 8];
                    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
                    let mut parts = chunks(&pack(&text, *packing)?, id);
                    if parts.len() > CHUNKS {
                        // More than the format can carry: 16 KiB of text never is, escapes and attributes may be.
                        parts = chunks(&pack(&text, Packing::Gzip(9))?, id);
                        parts.truncate(CHUNKS);
                    }
                    if let Err(e) = parts.iter().try_for_each(|part| connected.send(part).map(drop)) {
                        *socket = None;
                        return Err(e);
                    }
                }
                Ok(())
            }
        }
    }

    fn confirms(&self) -> bool {
        matches!(self.way, Way::Udp { .. })
    }

    fn check(&mut self) -> io::Result<()> {
        match &mut self.way {
            Way::Tcp(stream) => stream.check(),
            Way::Udp { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_into_numbered_chunks() {
        let text = vec![7; 3000];
        let parts = chunks(&text, *b"12345678");
        assert_eq!(parts.len(), 3);
        for (n, part) in parts.iter().enumerate() {
            assert!(part.len() <= CHUNK);
            assert_eq!(&part[..CHUNK_HEAD], [&b"\x1e\x0f12345678"[..], &[n as u8, 3]].concat());
        }
        let whole: Vec<u8> = parts.iter().flat_map(|p| &p[CHUNK_HEAD..]).copied().collect();
        assert_eq!(whole, text);
        assert_eq!(chunks(b"short", [0; 8]), [b"short"]);
    }
}
