//! Builds that fail.

use std::sync::Arc;

use wharf_error::{Chain, HasKind, Kind};
use wharf_proto_buildkit::{Any, pb};

/// Why a build failed; shared by everyone who waits for the same step.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct BuildError {
    /// What a person reads.
    pub text: Arc<str>,
    /// What kind of failure it is.
    pub kind: Kind,
    /// The vertex that failed.
    pub vertex: Option<Arc<str>>,
    /// The place in the Dockerfile.
    pub source_place: Option<Arc<Place>>,
    /// What a front end said of it besides, in the protocol's own form.
    pub details: Option<Arc<[Any]>>,
}

/// A place in a source file.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The file.
    pub info: pb::SourceInfo,
    /// The lines.
    pub ranges: Vec<pb::Range>,
}

impl BuildError {
    /// A failure with a text.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { text: Arc::from(text.into()), kind, vertex: None, source_place: None, details: None }
    }

    /// What the user wrote is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, text)
    }

    /// Something on this machine failed.
    pub fn system(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Kind::System, format!("{what}: {}", Chain(error)))
    }

    /// Nobody waits any more.
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "context canceled")
    }

    /// Says where in the source it is, unless that is known.
    #[must_use]
    pub fn at(mut self, place: Option<Place>) -> Self {
        let told = |d: &Any| d.type_url.ends_with("errdefs.Source+json");
        if self.source_place.is_none() && !self.details.iter().flat_map(|d| d.iter()).any(told) {
            self.source_place = place.map(Arc::new);
        }
        self
    }

    /// Says which vertex failed, unless that is known.
    #[must_use]
    pub fn of(mut self, vertex: &str) -> Self {
        if self.vertex.is_none() {
            self.vertex = Some(Arc::from(vertex));
        }
        self
    }
}

impl HasKind for BuildError {
    fn kind(&self) -> Kind {
        self.kind
    }
}

impl From<wharf_image::ImageError> for BuildError {
    fn from(error: wharf_image::ImageError) -> Self {
        Self::new(error.kind(), Chain(&error).to_string())
    }
}

impl From<wharf_snapshot::SnapshotError> for BuildError {
    fn from(error: wharf_snapshot::SnapshotError) -> Self {
        Self::system("snapshot", &error)
    }
}

impl From<wharf_metadata::StoreError> for BuildError {
    fn from(error: wharf_metadata::StoreError) -> Self {
        Self::system("store", &error)
    }
}

impl From<std::io::Error> for BuildError {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::System, error.to_string())
    }
}

impl From<wharf_grpc::Status> for BuildError {
    fn from(status: wharf_grpc::Status) -> Self {
        use wharf_grpc::Code;
        let kind = match status.code {
            Code::NotFound => Kind::NotFound,
            Code::InvalidArgument => Kind::Invalid,
            Code::PermissionDenied => Kind::Forbidden,
            Code::Unimplemented => Kind::NotImplemented,
            Code::Unavailable => Kind::Unavailable,
            _ => Kind::System,
        };
        Self::new(kind, status.message)
    }
}
