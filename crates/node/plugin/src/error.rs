//! Errors of finding and calling plugins.

use std::path::PathBuf;

use wharf_error::{HasKind, Kind, kind_of_io};

/// What can go wrong with a plugin. Texts that clients know are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nobody has this name.
    #[error("plugin {0:?} not found")]
    NotFound(String),
    /// It is another kind of plugin.
    #[error("plugin {name:?} does not implement {capability:?}")]
    Capability {
        /// The plugin.
        name: String,
        /// What was asked of it.
        capability: &'static str,
    },
    /// Its specification cannot be used.
    #[error("plugin specification {}: {reason}", path.display())]
    Specification {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be reached, or the connection broke.
    #[error("{method}: {address}")]
    Connection {
        /// The method that was called.
        method: String,
        /// Where the plugin should be.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It answered with something that is no answer.
    #[error("{method}: {reason}")]
    Answer {
        /// The method that was called.
        method: String,
        /// What is wrong.
        reason: String,
    },
    /// It refused, in its own words.
    #[error("{method}: {text}")]
    Refused {
        /// The method that was called.
        method: String,
        /// HTTP status.
        status: u16,
        /// What the plugin said.
        text: String,
    },
}

impl HasKind for PluginError {
    fn kind(&self) -> Kind {
        match self {
            PluginError::NotFound(_) => Kind::NotFound,
            PluginError::Capability { .. } | PluginError::Specification { .. } => Kind::Invalid,
            PluginError::Connection { source, .. } => kind_of_io(source),
            PluginError::Refused { status: 404, .. } => Kind::NotFound,
            PluginError::Answer { .. } | PluginError::Refused { .. } => Kind::System,
        }
    }
}
