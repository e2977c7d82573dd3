//! Errors of log options, of writing and of reading the spool.

use wharf_error::{HasKind, Kind, kind_of_io};

/// What can go wrong with a container's log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A driver that does not exist here. Docker's text.
    #[error("logger: no log driver named '{0}' is registered")]
    UnknownDriver(String),
    /// A driver of Docker's that is not built in.
    #[error(
        "log driver {0:?} is not built into Wharf: use fluentd, syslog or gelf with a collector, or json-file with an agent"
    )]
    NotBuilt(String),
    /// An unknown delivery mode. Docker's text.
    #[error("logger: logging mode not supported: {0}")]
    Mode(String),
    /// A buffer for a mode without one. Docker's text.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferSize,
    /// An option that the driver does not have. Docker's text.
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption {
        /// The driver.
        driver: &'static str,
        /// The option.
        option: String,
    },
    /// An option's value is wrong.
    #[error("invalid value for {option}: {text}")]
    Value {
        /// The option.
        option: &'static str,
        /// What is wrong, in Docker's words.
        text: String,
    },
    /// Options that exclude each other. Docker's text.
    #[error("compress cannot be true when max-file is less than 2 or max-size is not set")]
    CompressWithoutRotation,
    /// The driver keeps nothing that could be read. Docker's text.
    #[error("configured logging driver does not support reading")]
    Unreadable,
    /// A system call on a log file failed.
    #[error("{operation} {file}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file, relative to the log folder.
        file: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl LogError {
    pub(crate) fn file(operation: &'static str, file: &str, source: impl Into<std::io::Error>) -> LogError {
        LogError::File { operation, file: file.to_owned(), source: source.into() }
    }
}

impl HasKind for LogError {
    fn kind(&self) -> Kind {
        match self {
            LogError::UnknownDriver(_)
            | LogError::NotBuilt(_)
            | LogError::Mode(_)
            | LogError::BufferSize
            | LogError::UnknownOption { .. }
            | LogError::Value { .. }
            | LogError::CompressWithoutRotation => Kind::Invalid,
            LogError::Unreadable => Kind::NotImplemented,
            LogError::File { source, .. } => kind_of_io(source),
        }
    }
}
