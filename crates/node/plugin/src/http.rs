//! One HTTP/1.1 exchange a connection, which is all that the protocol needs.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::Address;

/// The media type of requests and answers (moby `pkg/plugins/transport`).
pub(crate) const MEDIA: &str = "application/vnd.docker.plugins.v1.2+json";

/// The longest answer taken, as a bound on memory.
const LONGEST: usize = 16 << 20;
/// The longest head of an answer.
const LONGEST_HEAD: usize = 64 << 10;

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
        match address {
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path)?)),
            Address::Tcp(host) => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in host.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => return Ok(Stream::Tcp(stream)),
                        Err(e) => last = e,
                    }
                }
                Err(last)
            }
        }
    }

    fn limit(&self, left: Duration) -> io::Result<()> {
        // Zero would mean no limit at all.
        let left = Some(left.max(Duration::from_millis(1)));
        match self {
            Stream::Unix(s) => s.set_read_timeout(left).and_then(|()| s.set_write_timeout(left)),
            Stream::Tcp(s) => s.set_read_timeout(left).and_then(|()| s.set_write_timeout(left)),
        }
    }

    fn io(&mut self) -> &mut dyn ReadWrite {
        match self {
            Stream::Unix(s) => s,
            Stream::Tcp(s) => s,
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Sends a POST and reads the answer: status and body.
pub(crate) fn post(address: &Address, path: &str, body: &[u8], timeout: Duration) -> io::Result<(u16, Vec<u8>)> {
    let end = Instant::now() + timeout;
    let mut stream = Stream::connect(address, timeout)?;
    stream.limit(timeout)?;
    let host = match address {
        // moby uses the path without slashes; plugins ignore it.
        Address::Unix(_) => "plugin",
        Address::Tcp(host) => host,
    };
    let length = body.len();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Docker-Client/unknown (linux)\r\nAccept: {MEDIA}\r\n\
         Content-Type: {MEDIA}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    stream.io().write_all(&request)?;
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        if let Some(answer) = parse_answer(&bytes, false).map_err(io::Error::other)? {
            return Ok(answer);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.limit(left)?;
        let read = match stream.io().read(&mut chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if read == 0 {
            let answer = parse_answer(&bytes, true).map_err(io::Error::other)?;
            return answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.len() > LONGEST {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// Reads an answer: `None` while it is not whole. `ended` tells that nothing will follow. The error is the reason alone.
pub fn parse_answer(bytes: &[u8], ended: bool) -> Result<Option<(u16, Vec<u8>)>, String> {
    let Some(head_end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() > LONGEST_HEAD { Err("the answer's head is too long".to_owned()) } else { Ok(None) };
    };
    let head = str::from_utf8(&bytes[..head_end]).map_err(|_| "the answer's head is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.").and_then(|s| s.get(2..5)).and_then(|s| s.parse().ok());
    let status: u16 = status.ok_or_else(|| "no HTTP answer".to_owned())?;
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().map_err(|_| "a wrong Content-Length".to_owned())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().contains("chunked");
        }
    }
    let body = &bytes[head_end + 4..];
    if chunked {
        return Ok(unchunk(body)?.map(|body| (status, body)));
    }
    match length {
        _ if matches!(status, 204 | 304) => Ok(Some((status, Vec::new()))),
        Some(length) if length > LONGEST => Err("the answer is too long".to_owned()),
        Some(length) if body.len() >= length => Ok(Some((status, body[..length].to_vec()))),
        None if ended => Ok(Some((status, body.to_vec()))),
        Some(_) | None => Ok(None),
    }
}

fn unchunk(mut body: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let size = str::from_utf8(&body[..end]).unwrap_or_default().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| "a wrong chunk size".to_owned())?;
        if size > LONGEST {
            return Err("the answer is too long".to_owned());
        }
        let rest = &body[end + 2..];
        if size == 0 {
            return Ok(Some(whole));
        }
        if rest.len() < size + 2 {
            return Ok(None);
        }
        whole.extend_from_slice(&rest[..size]);
        body = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, ended: bool) -> Result<Option<(u16, String)>, String> {
        let answer = parse_answer(text.as_bytes(), ended)?;
        Ok(answer.map(|(status, body)| (status, String::from_utf8_lossy(&body).into_owned())))
    }

    #[test]
    fn answers_are_read_by_length_in_chunks_and_to_the_end() {
        let by_length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(by_length, false), Ok(Some((200, "{}".into()))));
        assert_eq!(parse(&by_length[..by_length.len() - 1], false), Ok(None));
        let chunked = "HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false), Ok(Some((500, "{}".into()))));
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\n{}", true), Ok(Some((200, "{}".into()))));
        assert_eq!(parse("HTTP/1.0 200 OK\r\n\r\n{}", false), Ok(None));
        for wrong in ["SSH-2.0\r\n\r\n", "HTTP/1.1 xx\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"] {
            assert!(parse(wrong, true).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(0u8..255, 0..200)) {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            let _ = parse_answer(&bytes, true);
            answer.extend(bytes);
            let _ = parse_answer(&answer, true);
        }
    }
}
