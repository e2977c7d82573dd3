//! Listening sockets: unix, tcp, and those handed over by systemd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use wharf_error::{HasKind, Kind};

use crate::socket::Socket;
use crate::tls::Tls;

/// Where dockerd listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The port of unencrypted TCP.
const DEFAULT_PORT: u16 = 2375;
/// The port of TCP with TLS.
const TLS_PORT: u16 = 2376;
/// The first descriptor of socket activation (sd_listen_fds(3)).
const FIRST_ACTIVATED: i32 = 3;

/// One `-H` address of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `tcp://host:port`, as `host:port`, or as `host:` where the port follows from TLS. The host is resolved when
    /// binding.
    Tcp(String),
    /// `fd://` takes all descriptors of socket activation, `fd://3` the one of that number.
    Activation(Option<i32>),
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
    #[error("can't create unix socket {0}: another process listens on it; is a Docker daemon already running?")]
    Occupied(PathBuf),
    /// The socket cannot be made.
    #[error("can't create unix socket {path}")]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port cannot be taken.
    #[error("can't listen on tcp {address}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
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
        source: io::Error,
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
pub struct Listener {
    kind: Accepting,
    /// The socket file to remove at the end, with its device and inode: another daemon's is left alone.
    file: Option<(PathBuf, u64, u64)>,
}

#[derive(Debug)]
enum Accepting {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener, Option<Tls>),
}

/// A client that has connected and, on an encrypted listener, not yet shaken hands.
pub(crate) struct Accepted(Incoming);

enum Incoming {
    Plain(Socket),
    Encrypted(tokio::net::TcpStream, Tls),
}

impl Accepted {
    /// The connection, after the handshake if there is one, and the name in the client's certificate.
    pub(crate) async fn ready(self) -> io::Result<(Socket, std::sync::Arc<str>)> {
        match self.0 {
            Incoming::Plain(socket) => Ok((socket, "".into())),
            Incoming::Encrypted(stream, tls) => tls.accept(stream).await,
        }
    }
}

impl Address {
    /// Parses an address as dockerd's `-H` takes it; an empty text is the default socket.
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        let bad = |reason| ListenError::Address { text: text.chars().take(200).collect(), reason };
        let trimmed = text.trim();
        let (scheme, rest) = match trimmed.split_once("://") {
            Some(parts) => parts,
            None if trimmed.is_empty() => return Ok(Self::Unix(DEFAULT_SOCKET.into())),
            None => ("tcp", trimmed),
        };
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(DEFAULT_SOCKET.into())),
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(bad("a socket's path must be absolute")),
            "tcp" => tcp(rest).ok_or_else(|| bad("expected host:port")).map(Self::Tcp),
            "fd" if rest.is_empty() || rest == "*" => Ok(Self::Activation(None)),
            "fd" => rest
                .parse()
                .ok()
                .filter(|n| *n >= FIRST_ACTIVATED)
                .map(|n| Self::Activation(Some(n)))
                .ok_or_else(|| bad("expected fd:// or the number of an inherited descriptor")),
            _ => Err(bad("unknown protocol: expected unix://, tcp:// or fd://")),
        }
    }
}

/// Checks and completes `host:port`; an empty host is loopback.
fn tcp(rest: &str) -> Option<String> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '@', ' ']) {
        return None;
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (format!("[{host}]"), after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => {
            let (host, port) = rest.split_once(':').unwrap_or((rest, ""));
            (host.to_owned(), Some(port))
        }
    };
    let port = port?;
    if !port.is_empty() {
        port.parse::<u16>().ok()?;
    }
    let host = if host.is_empty() { "127.0.0.1" } else { &host };
    Some(format!("{host}:{port}"))
}

impl Listener {
    /// Binds an address. A unix socket gets mode 0660 and the group, if it exists; a socket file on which nobody
    /// answers is replaced, one that answers is [`ListenError::Occupied`]. TCP is not encrypted. Must run inside a tokio
    /// runtime.
    pub async fn bind(address: &Address, group: &str) -> Result<Vec<Self>, ListenError> {
        Self::open(address, group, None).await
    }

    /// Binds an address as [`Self::bind`] does; TCP is encrypted.
    pub async fn bind_encrypted(address: &Address, group: &str, tls: &Tls) -> Result<Vec<Self>, ListenError> {
        Self::open(address, group, Some(tls)).await
    }

    async fn open(address: &Address, group: &str, tls: Option<&Tls>) -> Result<Vec<Self>, ListenError> {
        match address {
            Address::Unix(path) => unix(path, group).map(|l| vec![l]),
            Address::Tcp(address) => {
                let port = if tls.is_some() { TLS_PORT } else { DEFAULT_PORT };
                let address = if address.ends_with(':') { format!("{address}{port}") } else { address.clone() };
                let listener = tokio::net::TcpListener::bind(&address)
                    .await
                    .map_err(|source| ListenError::Tcp { address: address.clone(), source })?;
                if tls.is_none() {
                    tracing::warn!(
                        "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network: tcp://{address}"
                    );
                }
                Ok(vec![Self { kind: Accepting::Tcp(listener, tls.cloned()), file: None }])
            }
            Address::Activation(number) => activated(*number, tls),
        }
    }

    /// Waits for the next client.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let incoming = match &self.kind {
            Accepting::Unix(l) => Incoming::Plain(Socket::Unix(l.accept().await?.0)),
            Accepting::Tcp(l, tls) => {
                let stream = l.accept().await?.0;
                // Terminals send single bytes and wait for the echo.
                stream.set_nodelay(true)?;
                match tls {
                    Some(tls) => Incoming::Encrypted(stream, tls.clone()),
                    None => Incoming::Plain(Socket::Tcp(stream)),
                }
            }
        };
        Ok(Accepted(incoming))
    }

    /// Where a TCP listener listens, for tests and logs.
    pub fn tcp_address(&self) -> Option<std::net::SocketAddr> {
        match &self.kind {
            Accepting::Tcp(l, _) => l.local_addr().ok(),
            Accepting::Unix(_) => None,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some((path, device, inode)) = &self.file else { return };
        let ours = std::fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (*device, *inode));
        if ours && let Err(e) = std::fs::remove_file(path) {
            tracing::warn!(path = %path.display(), error = %e, "cannot remove the socket");
        }
    }
}

fn unix(path: &Path, group: &str) -> Result<Listener, ListenError> {
    let failed = |source: io::Error| ListenError::Unix { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if is_served(path) {
                return Err(ListenError::Occupied(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => return Err(failed(io::ErrorKind::AlreadyExists.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    // Nobody may connect before the mode and the group are right; the process' mask is its threads' business, so the
    // socket is bound closed to others by listening only after chmod.
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| failed(e.into()))?;
    let address = rustix::net::SocketAddrUnix::new(path).map_err(|e| failed(e.into()))?;
    rustix::net::bind(&socket, &address).map_err(|e| failed(e.into()))?;
    let made = std::fs::symlink_metadata(path).map_err(failed)?;
    let file = Some((path.to_owned(), made.dev(), made.ino()));
    own(path, group).map_err(failed)?;
    rustix::net::listen(&socket, 4096).map_err(|e| failed(e.into()))?;
    let listener = tokio::net::UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Listener { kind: Accepting::Unix(listener), file })
}

/// Whether a live process listens. A daemon that was killed may have been starting a program: until that is executed, it holds the
/// daemon's descriptors, and the socket takes connections that nobody will accept.
fn is_served(path: &Path) -> bool {
    let Ok(stream) = std::os::unix::net::UnixStream::connect(path) else { return false };
    // Who called listen(2), as unix(7) has it; none who is in another PID namespace.
    let Ok(owner) = rustix::net::sockopt::socket_peercred(&stream) else { return true };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", owner.pid.as_raw_nonzero())).unwrap_or_default();
    // The state stands behind the name, which may hold anything, parentheses too (proc_pid_stat(5)).
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Gives a socket to root and the group, for them alone.
fn own(path: &Path, group: &str) -> io::Result<()> {
    let gid = match group_id(group)? {
        Some(gid) => gid,
        None if group == "docker" || group.is_empty() => {
            tracing::debug!("Warning: could not change group {} to docker: group docker not found", path.display());
            0
        }
        None => return Err(io::Error::new(io::ErrorKind::NotFound, format!("group {group} not found"))),
    };
    rustix::fs::chown(path, None, Some(rustix::fs::Gid::from_raw(gid)))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o660))?;
    Ok(())
}

/// A group's number, by number or by name in `/etc/group` (group(5)).
fn group_id(group: &str) -> io::Result<Option<u32>> {
    if let Ok(gid) = group.parse() {
        return Ok(Some(gid));
    }
    let text = match std::fs::read_to_string("/etc/group") {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let id = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1))?.and_then(|gid| gid.parse().ok())
    };
    Ok(text.lines().find_map(id))
}

/// Takes descriptors that systemd handed over (sd_listen_fds(3)).
fn activated(number: Option<i32>, tls: Option<&Tls>) -> Result<Vec<Listener>, ListenError> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).ok();
    let count = variable("LISTEN_FDS").filter(|_| variable("LISTEN_PID") == own).unwrap_or(0);
    let range = FIRST_ACTIVATED..FIRST_ACTIVATED.saturating_add(count);
    let numbers: Vec<i32> = range.filter(|n| number.is_none_or(|wanted| wanted == *n)).collect();
    if numbers.is_empty() {
        return Err(ListenError::NoActivation);
    }
    numbers
        .into_iter()
        .map(|fd| {
            let taken = wharf_sys::descriptor::inherit(fd).and_then(|fd| listening(fd, tls));
            taken.map_err(|source| ListenError::Inherited { fd, source })
        })
        .collect()
}

fn listening(fd: OwnedFd, tls: Option<&Tls>) -> io::Result<Listener> {
    rustix::io::ioctl_fionbio(fd.as_fd(), true)?;
    let kind = match rustix::net::getsockname(&fd)?.address_family() {
        rustix::net::AddressFamily::UNIX => Accepting::Unix(tokio::net::UnixListener::from_std(fd.into())?),
        _ => Accepting::Tcp(tokio::net::TcpListener::from_std(fd.into())?, tls.cloned()),
    };
    Ok(Listener { kind, file: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn parsed(text: &str) -> Result<Address, String> {
        Address::parse(text).map_err(|e| e.to_string())
    }

    #[test]
    fn addresses_are_those_of_dockerd() {
        let tcp = |t: &str| Ok(Address::Tcp(t.to_owned()));
        assert_eq!(parsed(""), Ok(Address::Unix(DEFAULT_SOCKET.into())));
        assert_eq!(parsed("unix:///a/b.sock"), Ok(Address::Unix("/a/b.sock".into())));
        assert_eq!(parsed("tcp://"), tcp("127.0.0.1:"));
        assert_eq!(parsed("tcp://0.0.0.0:99"), tcp("0.0.0.0:99"));
        assert_eq!(parsed("tcp://[::1]:99"), tcp("[::1]:99"));
        assert_eq!(parsed("tcp://[::1]"), tcp("[::1]:"));
        assert_eq!(parsed("localhost:1"), tcp("localhost:1"));
        assert_eq!(parsed("fd://"), Ok(Address::Activation(None)));
        assert_eq!(parsed("fd://4"), Ok(Address::Activation(Some(4))));
        for bad in ["unix://rel", "udp://x", "tcp://x:y", "tcp://x:99999", "tcp://[x]:1", "tcp://a/b", "fd://1"] {
            assert!(parsed(bad).is_err_and(|e| e.starts_with(&format!("invalid bind address ({bad})"))), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_for_root_and_the_group_only_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("new/api.sock");
        let listener = Listener::bind(&Address::Unix(path.clone()), "docker").await.expect("bound");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_kept_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("api.sock");
        let address = Address::Unix(path.clone());
        let first = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        assert!(matches!(Listener::bind(&address, "docker").await, Err(ListenError::Occupied(p)) if p == path));
        drop(first);
        assert!(path.exists());
        Listener::bind(&address, "docker").await.expect("stale socket replaced");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_replaced() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("api.sock");
        std::fs::write(&path, "precious").expect("written");
        assert!(matches!(Listener::bind(&Address::Unix(path.clone()), "").await, Err(ListenError::Unix { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "precious");
    }

    #[tokio::test]
    async fn a_listener_leaves_a_successor_s_socket_alone() {
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("api.sock");
        let old = Listener::bind(&Address::Unix(path.clone()), "docker").await.expect("bound");
        std::fs::remove_file(&path).expect("removed");
        let _new = std::os::unix::net::UnixListener::bind(&path).expect("bound again");
        drop(old);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn an_unknown_group_is_an_error_unless_it_is_docker() {
        let dir = tempfile::tempdir().expect("temp");
        let address = Address::Unix(dir.path().join("api.sock"));
        assert!(Listener::bind(&address, "no-such-group-of-wharf").await.is_err());
    }

    #[tokio::test]
    async fn without_socket_activation_there_is_nothing_to_take() {
        assert!(matches!(Listener::bind(&Address::Activation(None), "").await, Err(ListenError::NoActivation)));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            let _ = Address::parse(&text);
        }
    }
}
