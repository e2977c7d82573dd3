//! How a call ended.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use wharf_proto_buildkit::Any;

/// gRPC's codes that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)] // grpc/doc/statuscodes.md
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    fn of(number: i32) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Canceled,
            3 => Self::InvalidArgument,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            9 => Self::FailedPrecondition,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The message.
    pub message: String,
    /// Typed details.
    pub details: Vec<Any>,
}

impl Status {
    /// A failure without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// The connection is gone.
    pub fn lost(error: &dyn std::fmt::Display) -> Self {
        Self::new(Code::Unavailable, format!("connection lost: {error}"))
    }

    /// Trailers that say how the call ended.
    pub(crate) fn trailers(result: &Result<(), Self>) -> HeaderMap {
        let mut map = HeaderMap::new();
        let Err(status) = result else {
            map.insert("grpc-status", HeaderValue::from_static("0"));
            return map;
        };
        map.insert("grpc-status", HeaderValue::from(status.code as i32));
        if let Ok(value) = HeaderValue::from_str(&encode(&status.message)) {
            map.insert("grpc-message", value);
        }
        if !status.details.is_empty() {
            let whole = wharf_proto_buildkit::Status {
                code: status.code as i32,
                message: status.message.clone(),
                details: status.details.clone(),
            };
            let text = STANDARD_NO_PAD.encode(whole.encode_to_vec());
            if let Ok(value) = HeaderValue::from_str(&text) {
                map.insert("grpc-status-details-bin", value);
            }
        }
        map
    }

    /// Reads trailers; `None` if they say nothing.
    pub(crate) fn read(map: &HeaderMap) -> Option<Result<(), Self>> {
        let code: i32 = map.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        if code == 0 {
            return Some(Ok(()));
        }
        let message = map.get("grpc-message").map(|v| decode(v.as_bytes())).unwrap_or_default();
        let details = map.get("grpc-status-details-bin").and_then(|v| {
            let text = v.to_str().ok()?;
            let bytes = STANDARD_NO_PAD.decode(text.trim_end_matches('=')).or_else(|_| STANDARD.decode(text)).ok()?;
            wharf_proto_buildkit::Status::decode(bytes.as_slice()).ok()
        });
        let details = details.map(|d| d.details).unwrap_or_default();
        Some(Err(Self { code: Code::of(code), message, details }))
    }
}

/// Percent-encodes what is not printable ASCII.
fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decode(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
