//! As much of HTTP/1.1 as a registry needs, with ways to do it wrong.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{Fate, Flaw, State, api, lock};

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Arc<Vec<u8>>,
}

impl Ask {
    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A value of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        self.queries(name).into_iter().next()
    }

    /// All values of a name in the query.
    pub fn queries(&self, name: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| *n == name).map(|(_, v)| decoded(v)).collect()
    }

    /// Whether it reads a blob's bytes.
    pub fn reads_blob(&self) -> bool {
        self.method == "GET" && self.path().contains("/blobs/sha256:")
    }

    /// Whether it reads a manifest's bytes.
    pub fn reads_manifest(&self) -> bool {
        self.method == "GET" && self.path().contains("/manifests/")
    }
}

pub(super) fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let hex: String = bytes.by_ref().take(2).map(char::from).collect();
            out.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
        } else {
            out.push(b);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Arc<Vec<u8>>,
    /// Where in it to begin, and where to end.
    pub part: Option<(usize, usize)>,
}

impl Answer {
    /// An answer without body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Arc::new(body.into());
        self
    }

    /// A registry's list of one error.
    pub fn complaint(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": null}]});
        Self::status(status).with("Content-Type", "application/json").body(body.to_string())
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Serves one connection to its end.
pub(super) fn serve(state: &State, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
    let _ = stream.set_nodelay(true);
    let raw = stream.try_clone();
    let Ok(raw) = raw else { return };
    // A client that goes away in the middle is no concern of ours.
    let _ = match tls {
        None => converse(state, Box::new(stream), &raw),
        Some(config) => match ServerConnection::new(config) {
            Ok(connection) => converse(state, Box::new(StreamOwned::new(connection, stream)), &raw),
            Err(_) => Ok(()),
        },
    };
    let _ = raw.shutdown(std::net::Shutdown::Both);
}

fn converse(state: &State, stream: Box<dyn Stream>, raw: &TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(ask) = read(&mut stream)? else { return Ok(()) };
        if state.stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        lock(&state.asked).push(ask.clone());
        let fate = (lock(&state.judge))(&ask);
        let (answer, flaw) = match fate {
            Fate::Fair => (api::answer(state, &ask), None),
            Fate::Instead(answer) => (answer, None),
            Fate::Flawed(flaw) => (api::answer(state, &ask), Some(flaw)),
        };
        if !write(state, stream.get_mut(), raw, &ask, &answer, flaw)? {
            return Ok(());
        }
    }
}

fn read(stream: &mut impl BufRead) -> io::Result<Option<Ask>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.trim().to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut ask = Ask { method, target, headers, body: Arc::default() };
    let mut body = Vec::new();
    if let Some(length) = ask.header("content-length").and_then(|v| v.parse::<u64>().ok()) {
        stream.take(length).read_to_end(&mut body)?;
    } else if ask.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).unwrap_or(0);
            stream.take(size).read_to_end(&mut body)?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    }
    ask.body = Arc::new(body);
    Ok(Some(ask))
}

/// Writes an answer; false where the connection is to end.
fn write(
    state: &State,
    out: &mut dyn Stream,
    raw: &TcpStream,
    ask: &Ask,
    answer: &Answer,
    flaw: Option<Flaw>,
) -> io::Result<bool> {
    let (start, end) = answer.part.unwrap_or((0, answer.body.len()));
    let body = &answer.body[start.min(answer.body.len())..end.min(answer.body.len())];
    let length = match flaw {
        Some(Flaw::Length(off)) => (body.len() as i64 + off).max(0) as usize,
        _ => body.len(),
    };
    let mut head = format!("HTTP/1.1 {} -\r\nContent-Length: {length}\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes())?;
    if ask.method == "HEAD" {
        out.flush()?;
        return Ok(true);
    }
    let upto = |n: usize| &body[..n.min(body.len())];
    match flaw {
        None => out.write_all(body)?,
        Some(Flaw::Cut(n)) => {
            out.write_all(upto(n))?;
            out.flush()?;
            return Ok(false);
        }
        Some(Flaw::Reset(n)) => {
            out.write_all(upto(n))?;
            out.flush()?;
            // With this option the kernel answers with a reset in place of an orderly end (socket(7)).
            rustix::net::sockopt::set_socket_linger(raw, Some(Duration::ZERO))?;
            return Ok(false);
        }
        // What is complete does not stall.
        Some(Flaw::Stall(n)) if n >= body.len() && n > 0 => out.write_all(body)?,
        Some(Flaw::Stall(n)) => {
            out.write_all(upto(n))?;
            out.flush()?;
            while !state.stopping.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(false);
        }
        Some(Flaw::Length(_)) => {
            out.write_all(body)?;
            out.flush()?;
            return Ok(false);
        }
        Some(Flaw::Flip(at)) => {
            let mut body = body.to_vec();
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1;
            }
            out.write_all(&body)?;
        }
        Some(Flaw::Slow(rate)) => {
            for piece in body.chunks((rate / 50).max(1)) {
                out.write_all(piece)?;
                out.flush()?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    out.flush()?;
    Ok(ask.header("connection") != Some("close"))
}

/// Makes an authority, a server's certificate for 127.0.0.1 and a client's, and the server's configuration.
pub(super) fn certificates(folder: &Path, clients: bool) -> Arc<ServerConfig> {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority_pem = authority.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let make = |name: &str, usage| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        parameters.extended_key_usages = vec![usage];
        let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
        (certificate, key)
    };
    let (server, server_key) = make("127.0.0.1", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let (client, client_key) = make("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    for (name, text) in
        [("ca.crt", authority_pem), ("client.cert", client.pem()), ("client.key", client_key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).expect("the folder is ours");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.expect("versions");
    let builder = if clients {
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(folder.join("ca.crt")).expect("just written");
        roots.add(authority).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(server_key.serialize_der()).expect("a key");
    Arc::new(builder.with_single_cert(vec![server.der().clone()], key).expect("fits"))
}
