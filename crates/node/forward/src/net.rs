//! Streams to collectors: TCP, unix, TLS, each with time limits.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::RecvFlags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use wharf_tls::Trust;

use crate::ForwardError;

/// How long connecting, writing and waiting for an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where a stream goes.
#[derive(Clone)]
pub(crate) enum Place {
    Tcp(String),
    Unix(PathBuf),
    Tls { host: String, name: ServerName<'static>, config: Arc<ClientConfig> },
}

/// A connected stream.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

fn tcp(host: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            // A port of the ephemeral range where nobody listens can be connected to itself (RFC 9293, 3.5): a
            // collector that is away would seem to be there.
            Ok(stream) if stream.local_addr()? == address => last = io::ErrorKind::ConnectionRefused.into(),
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

impl Stream {
    pub(crate) fn connect(place: &Place) -> io::Result<Stream> {
        match place {
            Place::Tcp(host) => Ok(Stream::Tcp(tcp(host)?)),
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Stream::Unix(stream))
            }
            Place::Tls { host, name, config } => {
                let connection = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, tcp(host)?);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }

    /// Fails if the other side has closed the connection.
    pub(crate) fn check(&self) -> io::Result<()> {
        let fd = match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
            Stream::Tls(s) => s.sock.as_fd(),
        };
        let mut byte = [0_u8; 1];
        match rustix::net::recv(fd, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buffer),
            Stream::Unix(s) => s.read(buffer),
            Stream::Tls(s) => s.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(bytes),
            Stream::Unix(s) => s.write(bytes),
            Stream::Tls(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.flush(),
            Stream::Unix(s) => s.flush(),
            Stream::Tls(s) => s.flush(),
        }
    }
}

/// A stream that is connected when it is needed, and anew after trouble.
pub(crate) struct Lazy {
    pub(crate) place: Place,
    stream: Option<Stream>,
}

impl Lazy {
    pub(crate) fn new(place: Place) -> Lazy {
        Lazy { place, stream: None }
    }

    /// Does something with the stream; one that failed is not used again.
    pub(crate) fn with<T>(&mut self, work: impl FnOnce(&mut Stream) -> io::Result<T>) -> io::Result<T> {
        if self.stream.as_ref().is_some_and(|s| s.check().is_err()) {
            self.stream = None;
            // What was written to it may be lost: the caller goes back to what is confirmed.
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.stream.is_none() {
            self.stream = Some(Stream::connect(&self.place)?);
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let done = work(stream);
        if done.is_err() {
            self.stream = None;
        }
        done
    }

    pub(crate) fn check(&mut self) -> io::Result<()> {
        match self.stream.as_ref().map_or(Err(io::ErrorKind::NotConnected.into()), Stream::check) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.stream = None;
                Err(e)
            }
        }
    }

    /// Forgets a connection that the other side closes after an answer.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }
}

/// What TLS needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TlsOptions<'a> {
    pub(crate) roots: &'a str,
    pub(crate) certificate: &'a str,
    pub(crate) key: &'a str,
    pub(crate) skip_verify: bool,
    /// The name to be in the certificate, if it is not the host's.
    pub(crate) name: &'a str,
}

fn certificates(what: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, ForwardError> {
    let failed =
        |e: rustls::pki_types::pem::Error| ForwardError::Tls { what, path: path.to_owned(), reason: e.to_string() };
    CertificateDer::pem_file_iter(Path::new(path)).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// Prepares TLS to `host:port`.
pub(crate) fn tls(host: &str, options: TlsOptions<'_>) -> Result<Place, ForwardError> {
    let wrong = |what, path: &str, reason: String| ForwardError::Tls { what, path: path.to_owned(), reason };
    const AUTHORITY: &str = "certificate authority";
    let trust = if options.skip_verify {
        Trust::Anyone
    } else if options.roots.is_empty() {
        Trust::Authorities(wharf_tls::system_authorities().map_err(|e| wrong(AUTHORITY, "", e.to_string()))?)
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(AUTHORITY, options.roots)?);
        if roots.is_empty() {
            return Err(wrong(AUTHORITY, options.roots, "no certificate".to_owned()));
        }
        Trust::Authorities(roots)
    };
    let identity = if options.certificate.is_empty() {
        None
    } else {
        let key = PrivateKeyDer::from_pem_file(options.key).map_err(|e| wrong("key", options.key, e.to_string()))?;
        Some((certificates("certificate", options.certificate)?, key))
    };
    let config =
        wharf_tls::client(trust, identity).map_err(|e| wrong("certificate", options.certificate, e.to_string()))?;
    let bare = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let name = if options.name.is_empty() { bare } else { options.name };
    let name = ServerName::try_from(name.to_owned()).map_err(|e| wrong("server name", name, e.to_string()))?;
    Ok(Place::Tls { host: host.to_owned(), name, config: Arc::new(config) })
}
