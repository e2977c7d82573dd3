//! TLS to a daemon: certificates as Docker's client takes them, and a thread that joins the encrypted connection to a
//! plain socket, so that everything else works on one kind of connection.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use wharf_tls::Trust;

/// What is said of authorities that cannot be read.
const AUTHORITIES: &str = "the authorities";

/// What a client shows and whom it believes; PEM text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// Authorities; the system's where there are none.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate.
    pub certificate: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Whether the daemon's certificate is not checked.
    pub unverified: bool,
}

/// TLS, ready for connections.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Eq for Tls {}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM of its kind.
    #[error("could not read {0}")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// A certificate without its key, or the other way round.
    #[error("could not load X509 key pair: certificate and key must be given together")]
    Pair,
    /// Refused by the library.
    #[error("could not use the certificate")]
    Unusable(#[source] rustls::Error),
}

impl Tls {
    /// Reads certificates.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(material: &Material) -> Result<Tls, TlsError> {
        let trust = match &material.authorities {
            _ if material.unverified => Trust::Anyone,
            None => Trust::Authorities(wharf_tls::system_authorities().map_err(|e| TlsError::Pem(AUTHORITIES, e))?),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(AUTHORITIES, pem)?);
                Trust::Authorities(roots)
            }
        };
        let identity = match (&material.certificate, &material.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let chain = certificates("the client's certificate", certificate)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| TlsError::Pem("the client's key", e))?;
                Some((chain, key))
            }
            _ => return Err(TlsError::Pair),
        };
        let config = wharf_tls::client(trust, identity).map_err(TlsError::Unusable)?;
        Ok(Tls(Arc::new(config)))
    }

    /// Connects and shakes hands; returns the plain end of the connection.
    pub(crate) fn connect(&self, address: &str) -> io::Result<UnixStream> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(self.0.clone(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        let (ours, theirs) = UnixStream::pair()?;
        std::thread::Builder::new().name("tls".to_owned()).spawn(move || {
            // An error ends the connection; its user sees the end.
            let _ = Pump { session, tcp, plain: theirs, out: Vec::new(), input_ended: false, plain_ended: false }.run();
        })?;
        Ok(ours)
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| TlsError::Pem(what, e))
}

/// Copies between the encrypted and the plain side until both have ended.
struct Pump {
    session: ClientConnection,
    tcp: TcpStream,
    plain: UnixStream,
    /// Decrypted and not yet taken by the plain side.
    out: Vec<u8>,
    /// The plain side sends no more.
    input_ended: bool,
    /// The daemon sends no more.
    plain_ended: bool,
}

impl Pump {
    fn run(mut self) -> io::Result<()> {
        self.tcp.set_nonblocking(true)?;
        self.plain.set_nonblocking(true)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            self.deliver()?;
            if self.plain_ended && self.out.is_empty() {
                // What is on its way to the daemon cannot be answered any more.
                let _ = self.plain.shutdown(Shutdown::Both);
                return Ok(());
            }
            let [encrypted, plain] = self.wait()?;
            if encrypted.contains(PollFlags::OUT) {
                again(self.session.write_tls(&mut self.tcp))?;
            }
            if encrypted.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.plain_ended {
                self.receive(&mut buffer)?;
            }
            if plain.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.input_ended {
                match self.plain.read(&mut buffer) {
                    Ok(0) => {
                        self.session.send_close_notify();
                        self.input_ended = true;
                    }
                    Ok(n) => self.session.writer().write_all(&buffer[..n])?,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }

    fn wait(&self) -> io::Result<[PollFlags; 2]> {
        let mut encrypted = PollFlags::empty();
        encrypted.set(PollFlags::IN, !self.plain_ended && self.out.len() < 1 << 20);
        encrypted.set(PollFlags::OUT, self.session.wants_write());
        let mut plain = PollFlags::empty();
        plain.set(PollFlags::IN, !self.input_ended && !self.session.wants_write());
        plain.set(PollFlags::OUT, !self.out.is_empty());
        let (tcp, socket) = (self.tcp.as_fd(), self.plain.as_fd());
        // A side from which nothing is wanted is not asked at all: its end would be told again and again.
        let mut fds = Vec::new();
        let mut which = Vec::new();
        for (i, (fd, events)) in [(tcp, encrypted), (socket, plain)].into_iter().enumerate() {
            if !events.is_empty() {
                fds.push(PollFd::from_borrowed_fd(fd, events));
                which.push(i);
            }
        }
        loop {
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => break,
            }
        }
        let mut found = [PollFlags::empty(); 2];
        which.iter().zip(&fds).for_each(|(i, fd)| found[*i] = fd.revents());
        Ok(found)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.session.read_tls(&mut self.tcp) {
            Ok(0) => self.plain_ended = true,
            Ok(_) => {
                self.session.process_new_packets().map_err(io::Error::other)?;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        loop {
            match self.session.reader().read(buffer) {
                Ok(0) => {
                    self.plain_ended = true;
                    return Ok(());
                }
                Ok(n) => self.out.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    self.plain_ended = true;
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn deliver(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.plain.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn again(done: io::Result<usize>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(()),
    }
}
