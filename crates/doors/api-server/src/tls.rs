//! TLS on TCP listeners: certificates, client verification, and the bridge to a plain socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use wharf_error::{HasKind, Kind};

use crate::socket::Socket;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The daemon's `--tls…` flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `--tlscert`: the server's certificate and what leads to its root.
    pub certificate: PathBuf,
    /// `--tlskey`: the certificate's key.
    pub key: PathBuf,
    /// `--tlscacert` with `--tlsverify`: clients must show a certificate signed by one of these. Absent: any client.
    pub clients: Option<PathBuf>,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of its kind.
    #[error("could not read {what} {path}")]
    File {
        /// What the file holds.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The file that should hold clients' roots holds none that can be used.
    #[error("no certificate authority in {0}")]
    NoRoots(PathBuf),
    /// Certificate and key do not fit each other or the library.
    #[error("could not use certificate {certificate}")]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The roots cannot be used to verify clients.
    #[error("could not verify clients by {0}")]
    Verifier(PathBuf, #[source] rustls::server::VerifierBuilderError),
}

impl HasKind for TlsError {
    fn kind(&self) -> Kind {
        match self {
            Self::File { .. } | Self::NoRoots(_) | Self::Unusable { .. } | Self::Verifier(..) => Kind::Invalid,
        }
    }
}

/// TLS, ready for connections.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what, path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

impl Tls {
    /// Reads the files. TLS 1.2 and 1.3 are offered.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain = certificates("certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
            what: "key",
            path: files.key.clone(),
            source,
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |source| TlsError::Unusable { certificate: files.certificate.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(unusable)?;
        let builder = match &files.clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates("certificate authority", path)?);
                if roots.is_empty() {
                    return Err(TlsError::NoRoots(path.clone()));
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| TlsError::Verifier(path.clone(), e))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands, and gives a plain socket that a task of its own joins to the encrypted connection: everything
    /// behind it, hijacked streams with their half-closes too, is the same for all connections.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(Socket, Arc<str>)> {
        let mut encrypted = tokio::time::timeout(HANDSHAKE, self.0.accept(stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (_, connection) = encrypted.get_ref();
        let client = connection.peer_certificates().and_then(|chain| chain.first());
        let user: Arc<str> = client.and_then(|c| common_name(c)).unwrap_or_default().into();
        let (plain, mut inner) = UnixStream::pair()?;
        tokio::spawn(async move {
            if let Err(e) = copy_bidirectional(&mut encrypted, &mut inner).await {
                tracing::debug!(error = %e, "encrypted connection ended");
            }
        });
        Ok((Socket::Unix(plain), user))
    }
}

/// One element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = der else { return None };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |all, b| (all << 8) | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// The common name of a certificate's subject (RFC 5280, 4.1): whom authorisation plugins are told of.
fn common_name(certificate: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let (_, body, _) = element(certificate)?;
    let (_, mut rest, _) = element(body)?;
    // The version, which stands in a tag of its own, may be absent.
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (_, mut names, _) = element(rest)?;
    while let Some((_, set, after)) = element(names) {
        let (_, pair, _) = element(set)?;
        let (_, kind, value) = element(pair)?;
        if kind == COMMON_NAME {
            return Some(String::from_utf8_lossy(element(value)?.1).into_owned());
        }
        names = after;
    }
    None
}
