//! ttRPC's request and response envelopes, and gRPC's status.

use wharf_error::Kind;

use crate::Any;

/// One pair of a call's metadata.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// Name, for example `containerd-namespace-ttrpc`.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Request {
    /// Full service name: [`crate::task::SERVICE`] or [`crate::shim::SERVICE`].
    #[prost(string, tag = "1")]
    pub service: String,
    /// Method name, for example `Create`.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded request message.
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller will wait, in nanoseconds; 0 for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    /// Metadata.
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// A call's outcome: a status other than OK, or a payload.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Response {
    /// Absent or code 0 means success.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The encoded response message.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// A gRPC code; see [`Code`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Typed details; ours carry a [`crate::shim::Failure`].
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// gRPC status codes, as `google/rpc/code.proto` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The kind that a client sees for this code.
    pub fn kind(self) -> Kind {
        match self {
            Code::Cancelled => Kind::Cancelled,
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::DeadlineExceeded => Kind::Deadline,
            Code::NotFound => Kind::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Conflict,
            Code::PermissionDenied => Kind::Forbidden,
            Code::ResourceExhausted => Kind::TooLarge,
            Code::Unimplemented => Kind::NotImplemented,
            Code::Unavailable => Kind::Unavailable,
            Code::DataLoss => Kind::DataLoss,
            Code::Unauthenticated => Kind::Unauthorised,
            Code::Ok | Code::Unknown | Code::Internal => Kind::System,
        }
    }
}

impl Status {
    /// Makes a status without details.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code: code as i32, message: message.into(), details: Vec::new() }
    }

    /// Makes the status of a start that failed: code Unknown as containerd's shims give, with the record attached.
    pub fn from_failure(failure: &wharf_types::Failure) -> Status {
        let detail = crate::shim::Failure::from(failure).into_any();
        Status { code: Code::Unknown as i32, message: failure.to_string(), details: vec![detail] }
    }

    /// The start failure attached to this status, if there is one that can be read.
    pub fn failure(&self) -> Option<wharf_types::Failure> {
        self.details.iter().find_map(crate::shim::Failure::from_any)
    }

    /// The code; numbers that gRPC does not define are `Unknown`.
    pub fn code(&self) -> Code {
        Code::try_from(self.code).unwrap_or(Code::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_types::{Failure, Stage};

    #[test]
    fn a_start_failure_travels_in_the_status() {
        let failure = Failure { stage: Stage::CommandNotFound, errno: 2, subject: "nope".into() };
        let status = Status::from_failure(&failure);
        assert_eq!(status.failure(), Some(failure));
        assert_eq!(Status::new(Code::NotFound, "x").failure(), None);
    }
}
