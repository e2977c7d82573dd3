//! Errors of the resolver.

use std::io;

use wharf_error::{HasKind, Kind};

/// Why the resolver could not start or serve.
#[derive(Debug, thiserror::Error)]
#[error("{action} the resolver")]
pub struct DnsError {
    /// What was being done, in words.
    pub action: &'static str,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl HasKind for DnsError {
    fn kind(&self) -> Kind {
        Kind::System
    }
}

pub(crate) fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> DnsError {
    move |e| DnsError { action, source: e.into() }
}
