//! Splunk's HTTP Event Collector (moby `daemon/logger/splunk`).

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use wharf_logs::{Message, Remote, Stream};

use crate::forwarder::Sink;
use crate::net::{Lazy, Place, TlsOptions, tls};
use crate::{ForwardError, Info, host_name, line};

/// Where events go, below the collector's address.
const PATH: &str = "/services/collector/event/1.0";
/// The longest answer that is read.
const LONGEST: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Inline,
    Json,
    Raw,
}

/// An event collector.
pub(crate) struct Splunk {
    stream: Lazy,
    host: String,
    token: String,
    form: Form,
    gzip: Option<u32>,
    /// What every event carries.
    fixed: serde_json::Map<String, Value>,
    tag: String,
    attrs: Value,
}

impl Splunk {
    pub(crate) fn new(remote: &Remote, info: &Info) -> Result<Splunk, ForwardError> {
        let url = match remote.get("splunk-url") {
            "" => return Err(ForwardError::Missing("splunk-url")),
            url => url,
        };
        let token = match remote.get("splunk-token") {
            "" => return Err(ForwardError::Missing("splunk-token")),
            token => token.to_owned(),
        };
        let wrong = |option: &'static str, reason: String| ForwardError::Option { option, reason };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let host = rest.trim_end_matches('/');
        let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@']);
        if !matches!(scheme, "http" | "https") || !plain {
            let reason = format!("expected format scheme://dns_name_or_ip:port for splunk-url, got {url}");
            return Err(wrong("splunk", reason));
        }
        let named = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if scheme == "https" { 443 } else { 80 };
        let address = if named { host.to_owned() } else { format!("{host}:{port}") };
        let place = match scheme {
            "https" => {
                let options = TlsOptions {
                    roots: remote.get("splunk-capath"),
                    skip_verify: remote.switch("splunk-insecureskipverify"),
                    name: remote.get("splunk-caname"),
                    ..TlsOptions::default()
                };
                tls(&address, options)?
            }
            _ => Place::Tcp(address),
        };
        let form = match remote.get("splunk-format") {
            "" | "inline" => Form::Inline,
            "json" => Form::Json,
            "raw" => Form::Raw,
            other => {
                let reason = format!("unknown format specified {other}, supported formats are inline, json and raw");
                return Err(wrong("splunk", reason));
            }
        };
        let level = match remote.get("splunk-gzip-level") {
            "" => 6,
            text => match text.parse::<i8>() {
                Ok(level @ -1..=9) => u32::try_from(level).unwrap_or(6),
                _ => {
                    return Err(wrong(
                        "splunk-gzip-level",
                        format!("not supported level '{text}' (supported values between -1 and 9)"),
                    ));
                }
            },
        };
        let gzip = remote.switch("splunk-gzip").then_some(level);
        let mut fixed = serde_json::Map::new();
        fixed.insert("host".to_owned(), host_name().into());
        for (key, option) in
            [("source", "splunk-source"), ("sourcetype", "splunk-sourcetype"), ("index", "splunk-index")]
        {
            if !remote.get(option).is_empty() {
                fixed.insert(key.to_owned(), remote.get(option).into());
            }
        }
        let attrs = if info.extra.is_empty() { Value::Null } else { json!(info.extra) };
        let tag = info.tag.clone();
        Ok(Splunk { stream: Lazy::new(place), host: host.to_owned(), token, form, gzip, fixed, tag, attrs })
    }

    fn lay_out(&self, message: &Message) -> Option<Value> {
        let text = String::from_utf8_lossy(line(&message.bytes)).into_owned();
        let source = if message.stream == Stream::Stderr { "stderr" } else { "stdout" };
        let event = match self.form {
            Form::Raw => {
                // Blank lines are left out, as Docker does: the collector refuses events without text.
                if text.trim().is_empty() {
                    return None;
                }
                let pairs = self.attrs.as_object().into_iter().flatten();
                let attrs: Vec<String> =
                    pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
                let words = std::iter::once(self.tag.clone()).filter(|t| !t.is_empty()).chain(attrs);
                Value::String(words.chain([text]).collect::<Vec<_>>().join(" "))
            }
            form => {
                let line = match form {
                    Form::Json => serde_json::from_str::<Value>(&text).unwrap_or(Value::String(text)),
                    _ => Value::String(text),
                };
                let mut event = serde_json::Map::new();
                event.insert("line".to_owned(), line);
                event.insert("source".to_owned(), source.into());
                event.insert("tag".to_owned(), self.tag.as_str().into());
                if !self.attrs.is_null() {
                    event.insert("attrs".to_owned(), self.attrs.clone());
                }
                Value::Object(event)
            }
        };
        let mut object = self.fixed.clone();
        let (seconds, nanos) = (message.time.seconds(), message.time.subsec_nanos());
        object.insert("time".to_owned(), format!("{seconds}.{:06}", nanos / 1000).into());
        object.insert("event".to_owned(), event);
        Some(Value::Object(object))
    }
}

/// Reads an answer: its status, its text, and whether the connection ends with it.
fn read_answer(stream: &mut impl Read) -> io::Result<(u16, String, bool)> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
            let status = status.ok_or_else(|| io::Error::other("no HTTP answer"))?;
            let value = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
            let closes = value("connection:") == Some("close");
            let length = value("content-length:").and_then(|l| l.parse::<usize>().ok());
            let body = &bytes[end + 4..];
            let chunked = value("transfer-encoding:").is_some();
            let whole = match length {
                Some(length) => body.len() >= length,
                None if chunked => body.ends_with(b"0\r\n\r\n"),
                None => false,
            };
            if whole {
                return Ok((status, String::from_utf8_lossy(body).trim().to_owned(), closes));
            }
            if length.is_none() && !chunked && status == 204 {
                return Ok((status, String::new(), closes));
            }
        }
        if bytes.len() > LONGEST {
            return Err(io::Error::other("the answer is too long"));
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&part[..n]),
        }
    }
}

impl Sink for Splunk {
    fn deliver(&mut self, messages: &[Message]) -> io::Result<()> {
        let mut body = Vec::new();
        for event in messages.iter().filter_map(|m| self.lay_out(m)) {
            serde_json::to_writer(&mut body, &event)?;
        }
        if body.is_empty() {
            return Ok(());
        }
        let mut encoding = "";
        if let Some(level) = self.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&body)?;
            body = encoder.finish()?;
            encoding = "Content-Encoding: gzip\r\n";
        }
        let mut request = format!(
            "POST {PATH} HTTP/1.1\r\nHost: {}\r\nAuthorization: Splunk {}\r\nContent-Type: application/json\r\n\
             {encoding}Content-Length: {}\r\n\r\n",
            self.host,
            self.token,
            body.len()
        )
        .into_bytes();
        request.append(&mut body);
        let (status, text, closes) = self.stream.with(|s| {
            s.write_all(&request)?;
            s.flush()?;
            read_answer(s)
        })?;
        if closes {
            self.stream.close();
        }
        match status {
            200..=299 => Ok(()),
            _ => Err(io::Error::other(format!("the collector answered {status}: {text}"))),
        }
    }

    fn confirms(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_length_and_in_chunks() {
        let read = |text: &str| read_answer(&mut text.as_bytes()).map_err(|e| e.kind());
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        assert_eq!(read(plain), Ok((200, "{}".into(), true)));
        let chunked = "HTTP/1.1 403 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(read(chunked).map(|a| (a.0, a.2)), Ok((403, false)));
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), Err(io::ErrorKind::UnexpectedEof));
    }
}
