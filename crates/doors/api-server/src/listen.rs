//! Listening sockets: unix, tcp, and those handed over by systemd.

use std::net::SocketAddr;
use std::path::PathBuf;

use wharf_error::{HasKind, Kind};

/// One `-H` address of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://host:port`; the host is resolved when binding, the port is 2375 where it is missing.
    Tcp(String),
    /// `fd://` takes all descriptors of socket activation, `fd://3` or `fd://*` some.
    Activation(String),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is no address.
    #[error("invalid bind address ({text}): {reason}")]
    Address {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process answers on the socket.
    #[error("can't create unix socket {0}: is a Docker daemon already running?")]
    Occupied(PathBuf),
    /// The socket cannot be made.
    #[error("can't create unix socket {path}")]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The port cannot be taken.
    #[error("listen tcp {address}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No descriptors came from systemd.
    #[error("no sockets found via socket activation: make sure the service was started by systemd")]
    NoActivation,
    /// An inherited descriptor is no listening socket.
    #[error("inherited descriptor {fd} cannot be listened on")]
    Inherited {
        /// Its number.
        fd: i32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl HasKind for ListenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } => Kind::Invalid,
            Self::Occupied(_) => Kind::Conflict,
            Self::Unix { .. } | Self::Tcp { .. } | Self::Inherited { .. } | Self::NoActivation => Kind::System,
        }
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// On a path; the file is removed when the listener is dropped, if it is still ours.
    Unix(tokio::net::UnixListener, Option<PathBuf>),
    /// On a port.
    Tcp(tokio::net::TcpListener, SocketAddr),
}

impl Address {
    /// Parses an address as dockerd's `-H` takes it; an empty text is the default socket.
    pub fn parse(_text: &str) -> Result<Self, ListenError> {
        #[allow(clippy::unimplemented)]
        {
            unimplemented!()
        }
    }
}

impl Listener {
    /// Binds an address. A unix socket gets mode 0660 and the group, if it exists; a socket file on which nobody
    /// answers is replaced, one that answers is [`ListenError::Occupied`]. Must run inside a tokio runtime.
    pub async fn bind(_address: &Address, _group: &str) -> Result<Vec<Self>, ListenError> {
        #[allow(clippy::unimplemented)]
        {
            unimplemented!()
        }
    }
}
