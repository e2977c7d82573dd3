//! TLS towards registries: the system's roots, a registry's own, client certificates, and no verification where the
//! administrator said so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::DistributionError;
use crate::endpoint::TlsSettings;

/// Where distributions keep the certificate authorities (Go's `crypto/x509`, `root_linux.go`).
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Ready configurations, by their settings and the times of their files.
#[derive(Default)]
pub(crate) struct TlsCache(Mutex<HashMap<Key, Arc<ClientConfig>>>);

type Key = (TlsSettings, Vec<Option<SystemTime>>);

impl TlsCache {
    /// The configuration of these settings.
    pub(crate) fn config(&self, settings: &TlsSettings) -> Result<Arc<ClientConfig>, DistributionError> {
        let files = settings.authorities.iter();
        let files = files.chain(settings.clients.iter().flat_map(|(cert, key)| [Some(cert), key.as_ref()]).flatten());
        let times = files.map(|file| std::fs::metadata(file).and_then(|facts| facts.modified()).ok()).collect();
        let key = (settings.clone(), times);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(config) = known {
            return Ok(config);
        }
        let config = Arc::new(build(settings)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, config.clone());
        Ok(config)
    }
}

fn wrong(path: &Path, reason: impl std::fmt::Display) -> DistributionError {
    DistributionError::Settings { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DistributionError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    all.map_err(|e| wrong(path, e))
}

/// The system's roots. A system without any trusts nobody.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").filter(|f| !f.is_empty()).map(PathBuf::from);
    let bundle = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
    if let Some(bundle) = bundle {
        match certificates(&bundle) {
            Ok(found) => drop(roots.add_parsable_certificates(found)),
            Err(error) => tracing::warn!(%error, "cannot read the system's certificate authorities"),
        }
    }
    roots
}

fn build(settings: &TlsSettings) -> Result<ClientConfig, DistributionError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| DistributionError::Invalid(e.to_string()))?;
    let builder = if settings.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
    } else {
        let mut roots = system_roots();
        for path in &settings.authorities {
            let (added, _) = roots.add_parsable_certificates(certificates(path)?);
            if added == 0 {
                return Err(wrong(path, "holds no certificate authority"));
            }
        }
        builder.with_root_certificates(roots)
    };
    let mut config = match settings.clients.first() {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key_file = key.as_ref().unwrap_or(cert);
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| wrong(key_file, e))?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(|e| wrong(cert, e))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes any certificate, for registries that are listed as insecure. Signatures are still checked.
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
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
