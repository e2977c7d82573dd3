//! Errors of setting a forwarder up. Trouble of delivering is logged and tried again.

use wharf_error::{HasKind, Kind};

/// A forwarder that cannot be set up. Texts that clients know are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is no journal.
    #[error("journald is not enabled on this host")]
    NoJournal,
    /// A required option is missing. Docker's text.
    #[error("splunk: {0} is expected")]
    Missing(&'static str),
    /// An option's value cannot be used.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificates cannot be used.
    #[error("{what} {path}: {reason}")]
    Tls {
        /// What the file holds.
        what: &'static str,
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
    /// The thread cannot be started.
    #[error("cannot start forwarding")]
    Thread(#[source] std::io::Error),
}

impl HasKind for ForwardError {
    fn kind(&self) -> Kind {
        match self {
            ForwardError::Missing(_) | ForwardError::Option { .. } => Kind::Invalid,
            ForwardError::NoJournal | ForwardError::Tls { .. } | ForwardError::Thread(_) => Kind::System,
        }
    }
}
