//! Fluentd's forward protocol, message mode, with acknowledgements where asked for (moby `daemon/logger/fluentd`;
//! github.com/fluent/fluentd/wiki, "Forward Protocol Specification v1").

use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wharf_logs::{Message, Remote, Stream};

use crate::forwarder::Sink;
use crate::msgpack::{Value, decode, encode};
use crate::net::{Lazy, Place, TlsOptions, tls};
use crate::{ForwardError, Info, line};

const PORT: u16 = 24224;
/// The longest acknowledgement that is waited for.
const LONGEST: usize = 64 << 10;

/// A Fluentd or Fluent Bit.
pub(crate) struct Fluentd {
    stream: Lazy,
    tag: String,
    /// The fields of every message.
    fixed: Vec<(Value, Value)>,
    acknowledged: bool,
    precise: bool,
    /// The id of a line that came in parts, by stream.
    partial: [Option<(String, u64)>; 2],
}

fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    id
}

impl Fluentd {
    pub(crate) fn new(remote: &Remote, info: &Info) -> Result<Fluentd, ForwardError> {
        let address = remote.get("fluentd-address");
        let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
        let host = match rest {
            "" => format!("127.0.0.1:{PORT}"),
            host if host.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok()) => host.to_owned(),
            host => format!("{host}:{PORT}"),
        };
        let place = match scheme {
            "unix" => Place::Unix(rest.into()),
            "tls" => tls(&host, TlsOptions::default())?,
            _ => Place::Tcp(host),
        };
        let pair = |key: &str, value: &str| (Value::text(key), Value::text(value));
        let mut fixed = vec![pair("container_id", &info.id), pair("container_name", &format!("/{}", info.name))];
        fixed.extend(info.extra.iter().map(|(k, v)| pair(k, v)));
        Ok(Fluentd {
            stream: Lazy::new(place),
            tag: info.tag.clone(),
            fixed,
            acknowledged: remote.switch("fluentd-request-ack"),
            precise: remote.switch("fluentd-sub-second-precision"),
            partial: [None, None],
        })
    }

    /// Lays a message out; `chunk` is what its acknowledgement will carry.
    fn lay_out(&mut self, message: &Message, chunk: Option<&str>, out: &mut Vec<u8>) {
        let (source, slot) = match message.stream {
            Stream::Stdout => ("stdout", 0),
            Stream::Stderr => ("stderr", 1),
        };
        let pair = |key: &str, value: Value| (Value::text(key), value);
        let mut record = self.fixed.clone();
        record.push(pair("source", Value::text(source)));
        record.push(pair("log", Value::Str(line(&message.bytes).to_vec())));
        let whole = message.bytes.ends_with(b"\n");
        if !whole || self.partial[slot].is_some() {
            let (id, ordinal) = self.partial[slot]
                .take()
                .unwrap_or_else(|| (random_id().iter().map(|b| format!("{b:02x}")).collect(), 0));
            let ordinal = ordinal + 1;
            record.push(pair("partial_message", Value::text("true")));
            record.push(pair("partial_id", Value::text(&id)));
            record.push(pair("partial_ordinal", Value::text(&ordinal.to_string())));
            record.push(pair("partial_last", Value::text(if whole { "true" } else { "false" })));
            self.partial[slot] = (!whole).then_some((id, ordinal));
        }
        let time = if self.precise {
            // EventTime: seconds and nanoseconds, extension type 0.
            let mut bytes = (message.time.seconds() as u32).to_be_bytes().to_vec();
            bytes.extend_from_slice(&message.time.subsec_nanos().to_be_bytes());
            Value::Ext(0, bytes)
        } else {
            Value::Int(message.time.seconds())
        };
        let option = match chunk {
            Some(chunk) => Value::Map(vec![pair("chunk", Value::text(chunk))]),
            None => Value::Map(Vec::new()),
        };
        encode(out, &Value::Array(vec![Value::text(&self.tag), time, Value::Map(record), option]));
    }
}

/// Reads acknowledgements until every chunk has one, in any order.
fn await_acknowledgements(stream: &mut impl Read, mut chunks: Vec<String>) -> io::Result<()> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    while !chunks.is_empty() {
        while let Some((answer, used)) = decode(&bytes).map_err(io::Error::other)? {
            bytes.drain(..used);
            let Some(Value::Str(ack)) = answer.get("ack") else { continue };
            chunks.retain(|c| c.as_bytes() != ack.as_slice());
        }
        if chunks.is_empty() {
            break;
        }
        if bytes.len() > LONGEST {
            return Err(io::Error::other("the acknowledgement is too long"));
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&part[..n]),
        }
    }
    Ok(())
}

impl Sink for Fluentd {
    fn deliver(&mut self, messages: &[Message]) -> io::Result<()> {
        let (mut bytes, mut chunks) = (Vec::new(), Vec::new());
        let partial = self.partial.clone();
        for message in messages {
            let chunk = self.acknowledged.then(|| STANDARD.encode(random_id()));
            self.lay_out(message, chunk.as_deref(), &mut bytes);
            chunks.extend(chunk);
        }
        let done = self.stream.with(|s| {
            s.write_all(&bytes)?;
            s.flush()?;
            await_acknowledgements(s, chunks)
        });
        if done.is_err() {
            self.partial = partial;
        }
        done
    }

    fn confirms(&self) -> bool {
        self.acknowledged
    }

    fn check(&mut self) -> io::Result<()> {
        self.stream.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_may_come_in_any_order_and_in_pieces() {
        let ack = |chunk: &str| {
            let mut bytes = Vec::new();
            encode(&mut bytes, &Value::Map(vec![(Value::text("ack"), Value::text(chunk))]));
            bytes
        };
        let answers = [ack("b"), ack("other"), ack("a")].concat();
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                out[0] = *first;
                self.0 = rest;
                Ok(1)
            }
        }
        let chunks = || vec!["a".to_owned(), "b".to_owned()];
        await_acknowledgements(&mut Slow(&answers), chunks()).expect("both came");
        let short = await_acknowledgements(&mut Slow(&answers[..answers.len() - 1]), chunks());
        assert_eq!(short.map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
    }
}
