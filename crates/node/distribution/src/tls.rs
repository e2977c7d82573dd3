//! TLS towards registries: the system's roots, a registry's own, client certificates, and no verification where the
//! administrator said so.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use wharf_tls::Trust;

use crate::DistributionError;
use crate::endpoint::TlsSettings;

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

fn build(settings: &TlsSettings) -> Result<ClientConfig, DistributionError> {
    let trust = if settings.insecure {
        Trust::Anyone
    } else {
        let mut roots = wharf_tls::system_authorities().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the system's certificate authorities");
            RootCertStore::empty()
        });
        for path in &settings.authorities {
            let (added, _) = roots.add_parsable_certificates(certificates(path)?);
            if added == 0 {
                return Err(wrong(path, "holds no certificate authority"));
            }
        }
        Trust::Authorities(roots)
    };
    let identity = settings.clients.first().map(|(cert, key)| {
        let key_file = key.as_ref().unwrap_or(cert);
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| wrong(key_file, e))?;
        Ok::<_, DistributionError>((certificates(cert)?, key))
    });
    let shown = settings.clients.first().map(|(cert, _)| cert.clone()).unwrap_or_default();
    let mut config = wharf_tls::client(trust, identity.transpose()?).map_err(|e| wrong(&shown, e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
