//! TLS as a client: the system's authorities, certificates of one's own, and servers that are believed unseen.
//!
//! Who reads certificates from files or contexts says in words of its own what is wrong with them; how a configuration is
//! made of them stands here once.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Where distributions keep the certificate authorities (Go's `crypto/x509`, `root_linux.go`).
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Which servers are believed.
#[derive(Debug)]
pub enum Trust {
    /// Those that one of these authorities answers for.
    Authorities(RootCertStore),
    /// All of them. Signatures are still checked.
    Anyone,
}

/// What a client shows of itself: its certificates, its own first, and the key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The system's authorities: of the file that `SSL_CERT_FILE` names, or of the distribution's. A system without any trusts
/// nobody.
///
/// # Errors
/// The bundle cannot be read.
pub fn system_authorities() -> Result<RootCertStore, pem::Error> {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    if let Some(bundle) = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists())) {
        let found = CertificateDer::pem_file_iter(bundle)?.collect::<Result<Vec<_>, _>>()?;
        // One that the library does not like must not spoil the others.
        roots.add_parsable_certificates(found);
    }
    Ok(roots)
}

/// Makes a client's configuration, with ring's algorithms and TLS 1.2 and 1.3.
///
/// # Errors
/// Certificate and key do not fit together, or are of a kind that is not supported.
pub fn client(trust: Trust, identity: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Authorities(roots) => builder.with_root_certificates(roots),
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
    }
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
