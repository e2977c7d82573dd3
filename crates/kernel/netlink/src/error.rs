//! Errors of talking to the kernel over netlink.

use rustix::io::Errno;
use wharf_error::{HasKind, Kind};

/// Why a netlink exchange failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error("netlink {action}")]
    Socket {
        /// The system call, in words.
        action: &'static str,
        /// Its error.
        source: Errno,
    },
    /// The kernel refused a request.
    #[error("{request}{}", detail(.message))]
    Refused {
        /// What was asked for: a message name such as `add link`.
        request: &'static str,
        /// The kernel's extended error text, if it gave one.
        message: Option<String>,
        /// The kernel's error number.
        source: Errno,
    },
    /// The kernel's answer could not be read as netlink.
    #[error("malformed netlink answer: {0}")]
    Malformed(&'static str),
    /// The socket's buffer overflowed: events were lost, or an answer was truncated.
    #[error("netlink messages were lost")]
    Overrun,
}

fn detail(message: &Option<String>) -> String {
    message.as_ref().map_or_else(String::new, |m| format!(" ({m})"))
}

impl NetlinkError {
    /// The kernel's error number, if the kernel refused or the socket failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => Some(*source),
            Self::Malformed(_) | Self::Overrun => None,
        }
    }

    /// Whether the kernel answered with this error number.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }
}

impl HasKind for NetlinkError {
    fn kind(&self) -> Kind {
        match self.errno() {
            Some(Errno::NOENT | Errno::NODEV) => Kind::NotFound,
            Some(Errno::EXIST) => Kind::Conflict,
            Some(Errno::PERM | Errno::ACCESS) => Kind::Forbidden,
            _ => Kind::System,
        }
    }
}
