//! TLS on TCP: clients with a certificate of the right authority come in, others do not.

#[path = "fake/mod.rs"]
#[allow(dead_code)]
mod fake;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wharf_api_server::{Address, Listener, Tls, TlsError, TlsFiles, serve};

/// Writes an authority and certificates for `server` and `client` signed by it.
fn certificates(dir: &Path, prefix: &str) {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("self-signed");
    std::fs::write(dir.join(format!("{prefix}ca.pem")), authority.pem()).expect("written");
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        std::fs::write(dir.join(format!("{prefix}{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(dir.join(format!("{prefix}{name}.key")), key.serialize_pem()).expect("written");
    }
}

/// Asks `/_ping` over TLS; with the client's certificate of that prefix, if any.
async fn ping(dir: &Path, port: u16, client: Option<&str>) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).expect("read")).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(prefix) => {
            let certificate = CertificateDer::from_pem_file(dir.join(format!("{prefix}client.pem"))).expect("read");
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{prefix}client.key"))).expect("read");
            builder.with_client_auth_cert(vec![certificate], key).expect("client certificate")
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").expect("name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn only_clients_of_the_authority_are_served() {
    let dir = tempfile::tempdir().expect("temp");
    certificates(dir.path(), "");
    certificates(dir.path(), "foreign-");
    let files = TlsFiles {
        certificate: dir.path().join("server.pem"),
        key: dir.path().join("server.key"),
        clients: Some(dir.path().join("ca.pem")),
    };
    let tls = Tls::load(&files).expect("loaded");
    let address = Address::parse("tcp://127.0.0.1:0").expect("address");
    let listeners = Listener::bind_encrypted(&address, "", &tls).await.expect("bound");
    let port = listeners[0].tcp_address().expect("tcp").port();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let fake = Arc::new(fake::Fake::default());
    let served = tokio::spawn(serve(listeners, fake.backends(), fake::identity(), stopped, Duration::from_secs(5)));

    let answer = ping(dir.path(), port, Some("")).await.expect("served");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"), "{answer}");
    assert!(ping(dir.path(), port, None).await.is_err(), "a client without certificate was served");
    assert!(ping(dir.path(), port, Some("foreign-")).await.is_err(), "a foreign client was served");

    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"), "unencrypted HTTP was served");

    stop.send(true).expect("still serving");
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("in time").expect("no panic");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("temp");
    certificates(dir.path(), "");
    let at = |name: &str| dir.path().join(name);
    let load = |certificate: &str, key: &str, clients: Option<&str>| {
        Tls::load(&TlsFiles { certificate: at(certificate), key: at(key), clients: clients.map(at) })
    };
    assert!(matches!(load("none", "server.key", None), Err(TlsError::File { what: "certificate", .. })));
    assert!(matches!(load("server.pem", "server.pem", None), Err(TlsError::File { what: "key", .. })));
    assert!(matches!(load("server.pem", "client.key", None), Err(TlsError::Unusable { .. })));
    assert!(matches!(load("server.pem", "server.key", Some("server.key")), Err(TlsError::NoRoots(_))));
}
