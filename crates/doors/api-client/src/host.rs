//! The address of a daemon, as `DOCKER_HOST` and `-H` write it.

use std::fmt;

use wharf_error::{HasKind, Kind};

use crate::ssh::Login;
use crate::tls::Tls;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A unix socket.
    Unix(String),
    /// A TCP address, `host:port`, without TLS.
    Tcp(String),
    /// A TCP address with TLS.
    Tls(String, Tls),
    /// Another machine's daemon, by ssh.
    Ssh(Login),
}

/// An address that is none, with Docker's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not an address at all.
    #[error("invalid bind address format: {0}")]
    Format(String),
    /// An address of a kind that is not served.
    #[error("connecting by {scheme} is not available yet: {address}")]
    Scheme {
        /// The kind.
        scheme: String,
        /// The whole address.
        address: String,
    },
}

impl HasKind for HostError {
    fn kind(&self) -> Kind {
        match self {
            HostError::Format(_) => Kind::Invalid,
            HostError::Scheme { .. } => Kind::NotImplemented,
        }
    }
}

impl Host {
    /// Docker's default, used where neither a flag nor the environment names one.
    pub const DEFAULT: &str = "unix:///var/run/docker.sock";

    /// Reads an address: `unix://PATH`, `tcp://HOST[:PORT]`, a bare `/path`, `HOST[:PORT]`, or nothing for the default.
    ///
    /// # Errors
    /// Fails with Docker's text for what is no address; npipe and fd are refused by name.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        Self::read(text, "2375")
    }

    /// Reads an address to which TLS is spoken, if it is one of TCP.
    ///
    /// # Errors
    /// As [`Host::parse`].
    pub fn parse_for_tls(text: &str, tls: Tls) -> Result<Self, HostError> {
        Ok(match Self::read(text, "2376")? {
            Host::Tcp(address) => Host::Tls(address, tls),
            other => other,
        })
    }

    fn read(text: &str, default_port: &str) -> Result<Self, HostError> {
        let text = text.trim();
        let text = if text.is_empty() { Self::DEFAULT } else { text };
        let format = || HostError::Format(text.to_owned());
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None if text.starts_with('/') => ("unix", text),
            None if text.contains('/') || !text.contains(':') => return Err(format()),
            None => ("tcp", text),
        };
        match scheme {
            "unix" => {
                Ok(Host::Unix(if rest.is_empty() { Self::DEFAULT["unix://".len()..].into() } else { rest.into() }))
            }
            "tcp" | "http" => {
                let address = rest.split('/').next().unwrap_or_default();
                if rest.trim_end_matches('/').contains('/') {
                    return Err(format());
                }
                let (name, port) = match address.rsplit_once(':') {
                    Some((name, port)) if !port.ends_with(']') => (name, port),
                    _ => (address, ""),
                };
                let name = if name.is_empty() { "localhost" } else { name };
                let port = if port.is_empty() { default_port } else { port };
                port.parse::<u16>().map_err(|_| format())?;
                Ok(Host::Tcp(format!("{name}:{port}")))
            }
            "ssh" => Login::parse(rest).map(Host::Ssh).ok_or_else(format),
            "npipe" | "fd" | "https" => Err(HostError::Scheme { scheme: scheme.to_owned(), address: text.to_owned() }),
            _ => Err(format()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Unix(path) => write!(f, "unix://{path}"),
            Host::Tcp(address) | Host::Tls(address, _) => write!(f, "tcp://{address}"),
            Host::Ssh(login) => {
                let user = login.user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
                let port = login.port.map(|p| format!(":{p}")).unwrap_or_default();
                write!(f, "ssh://{user}{}{port}{}", login.host, login.path)
            }
        }
    }
}
