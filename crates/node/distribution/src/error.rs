//! What can go wrong between us and a registry. Texts are those that Docker's clients see with the containerd image store.

use std::io;
use std::path::PathBuf;

use wharf_content::ContentError;
use wharf_error::{HasKind, Kind};
use wharf_types::Digest;

/// Why a request could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The host's name has no address.
    #[error("dial tcp: lookup {host}: no such host")]
    Lookup {
        /// The host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection.
    #[error("dial tcp {address}: connect: {reason}")]
    Connect {
        /// Address and port.
        address: String,
        /// In Go's words.
        reason: String,
    },
    /// The other side speaks no TLS, or shows a certificate that does not hold.
    #[error("tls: {reason}")]
    Tls {
        /// The library's words, or Go's for the best known cases.
        reason: String,
        /// Whether the other side does not speak TLS at all.
        plain: bool,
    },
    /// A proxy refused to connect us.
    #[error("proxyconnect: {0}")]
    Proxy(String),
    /// The connection broke, or what came is no HTTP.
    #[error("{0}")]
    Http(String),
    /// Nothing came for too long.
    #[error("net/http: timeout awaiting response: nothing came for {0} seconds")]
    Stalled(u64),
}

/// One entry of a registry's list of errors (distribution-spec, "Error codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// `MANIFEST_UNKNOWN` and the like.
    pub code: String,
    /// For people.
    pub message: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As Go's `errcode` prints them: the code in words, then the message.
        let code = self.code.to_lowercase().replace('_', " ");
        if self.message.is_empty() { f.write_str(&code) } else { write!(f, "{code}: {}", self.message) }
    }
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The method.
    pub method: String,
    /// Where it was sent, without query and user.
    pub url: String,
    /// The status.
    pub status: u16,
    /// What the registry listed.
    pub complaints: Vec<Complaint>,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
    /// `ratelimit-limit` and `ratelimit-remaining`, as they came.
    pub rate_limit: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = reason(self.status);
        write!(f, "unexpected status from {} request to {}: {} {reason}", self.method, self.url, self.status)?;
        for complaint in &self.complaints {
            write!(f, "\n{complaint}")?;
        }
        if let (429, Some(limit)) = (self.status, &self.rate_limit) {
            write!(f, "\nrate limit: {limit}")?;
        }
        Ok(())
    }
}

/// A failed operation with a registry.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// What was named is not there.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry wants to know who we are, and did not like the answer.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Unauthorised(String),
    /// As before, when sending.
    #[error("push access denied, repository does not exist or may require authorization: {0}")]
    PushUnauthorised(String),
    /// Any other answer that says no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A request could not be done.
    #[error("failed to do request: {method} \"{url}\"")]
    Request {
        /// In Go's spelling, `Head`.
        method: String,
        /// Where.
        url: String,
        /// Why.
        source: TransportError,
    },
    /// A token server refused or answered nonsense.
    #[error("failed to fetch {kind} token: {reason}")]
    Token {
        /// `anonymous` or `oauth`.
        kind: &'static str,
        /// Why.
        reason: String,
    },
    /// The registry names a token server to which credentials must not go.
    #[error("refusing to send credentials to token server {realm}: {reason}")]
    Realm {
        /// The server.
        realm: String,
        /// Why.
        reason: &'static str,
    },
    /// A redirect that is not followed.
    #[error("refusing to follow the redirect of {url}: {reason}")]
    Redirect {
        /// From where.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// An index has nothing for the platform.
    #[error("no matching manifest for {0} in the manifest list entries: no match for platform in manifest: not found")]
    Platform(String),
    /// A manifest or index that is none, is ambiguous or is too large.
    #[error("{subject}: {reason}")]
    Document {
        /// Which.
        subject: String,
        /// Why.
        reason: String,
    },
    /// A layer that must not be distributed, or of a kind that nobody can unpack.
    #[error("unsupported media type {media_type} of {digest}")]
    MediaType {
        /// The type.
        media_type: String,
        /// The blob.
        digest: Digest,
    },
    /// Bytes that are not what was promised.
    #[error("unexpected commit digest {found}, expected {expected}: failed precondition")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More or fewer bytes than promised.
    #[error("unexpected commit size {found}, expected {expected}: failed precondition")]
    Size {
        /// What was promised.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A download failed too often.
    #[error("failed to copy: {url}: {reason}")]
    Download {
        /// From where.
        url: String,
        /// Why it failed last.
        reason: String,
    },
    /// A file that its server does not give (moby `builder/remotecontext`, `GetWithStatusError`).
    #[error("failed to GET {url} with status {status} {}: {body}", reason(*status))]
    Get {
        /// From where.
        url: String,
        /// The status.
        status: u16,
        /// What the server said.
        body: String,
    },
    /// A file's server could not be asked, in the words of Go's client.
    #[error("Get \"{url}\"")]
    Unreachable {
        /// From where.
        url: String,
        /// Why.
        source: TransportError,
    },
    /// A settings file of a registry is wrong.
    #[error("{path}: {reason}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A name or address that is none.
    #[error("{0}")]
    Invalid(String),
    /// A search that the registry did not answer.
    #[error("Unexpected status code {0}")]
    Search(u16),
    /// A login that was refused.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// Where.
        url: String,
        /// Status and its words.
        status: String,
    },
    /// Nobody waits for it any more.
    #[error("context canceled")]
    Cancelled,
    /// Blobs.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A failure that several waiters share.
    #[error(transparent)]
    Shared(std::sync::Arc<DistributionError>),
}

/// The words of a status.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("")
}

impl HasKind for DistributionError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) | Self::Platform(_) => Kind::NotFound,
            // As Docker answers: a wrong or missing login at a registry is a 404 for pulls, so that nobody learns which
            // repositories exist.
            Self::Unauthorised(_) | Self::PushUnauthorised(_) => Kind::NotFound,
            Self::Get { status, .. } => match status {
                401 => Kind::Unauthorised,
                403 => Kind::Forbidden,
                404 => Kind::NotFound,
                400..=499 => Kind::Invalid,
                _ => Kind::System,
            },
            Self::Refused(refusal) => match refusal.status {
                401 => Kind::Unauthorised,
                403 => Kind::Forbidden,
                404 => Kind::NotFound,
                429 | 503 => Kind::Unavailable,
                _ => Kind::System,
            },
            Self::Login { .. } => Kind::Unauthorised,
            Self::Token { .. } | Self::Realm { .. } => Kind::Unauthorised,
            Self::Document { .. } | Self::MediaType { .. } | Self::Invalid(_) | Self::Settings { .. } => Kind::Invalid,
            Self::Digest { .. } | Self::Size { .. } => Kind::DataLoss,
            Self::Unreachable { .. } => Kind::System,
            Self::Request { .. } | Self::Redirect { .. } | Self::Download { .. } | Self::Search(_) => Kind::System,
            Self::Cancelled => Kind::Cancelled,
            Self::Content(e) => e.kind(),
            Self::Shared(e) => e.kind(),
        }
    }
}

impl DistributionError {
    /// Whether the same request may go well a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Request { source, .. } => match source {
                TransportError::Tls { .. } | TransportError::Lookup { .. } | TransportError::Proxy(_) => false,
                TransportError::Connect { .. } | TransportError::Http(_) | TransportError::Stalled(_) => true,
            },
            Self::Refused(refusal) => matches!(refusal.status, 408 | 425 | 429 | 500..=599),
            Self::Download { .. } => true,
            Self::Shared(e) => e.is_passing(),
            _ => false,
        }
    }

    /// Whether the other side could not be talked to at all, so that another host of the same registry may help.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Request { .. })
    }
}
