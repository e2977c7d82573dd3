//! Why a command failed. Texts follow runc's where its callers (containerd, podman) look for them.

use std::io;
use std::path::PathBuf;

use wharf_types::Failure;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no command of this name.
    #[error("No help topic for '{0}'")]
    NoCommand(String),
    /// The id is empty.
    #[error("container id cannot be empty")]
    NoId,
    /// The id cannot be a container's.
    #[error("invalid container ID format: {0:?}")]
    Id(String),
    /// There is no such container.
    #[error("container does not exist")]
    NoSuchContainer,
    /// The id is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// The container is in another state than the command needs.
    #[error("{0}")]
    State(String),
    /// A file could not be read or written.
    #[error("{what} {path}")]
    File {
        /// What was done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A process of a container could not be started.
    #[error("unable to start container process: {}", text_of(.0))]
    Start(Failure),
    /// An existing container could not be used.
    #[error(transparent)]
    Runtime(#[from] wharf_runtime::Error),
    /// CRIU, or what it needs, failed.
    #[error(transparent)]
    Criu(#[from] wharf_runtime::criu::CriuError),
    /// The program could not be protected from its containers.
    #[error("protect the runtime's program file")]
    Protect(#[source] io::Error),
    /// The terminal could not be handed over or relayed.
    #[error("{what}")]
    Terminal {
        /// What was done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Waiting for a process failed.
    #[error("wait for container")]
    Wait(#[source] io::Error),
    /// The container's cgroup could not be read.
    #[error(transparent)]
    Cgroup(wharf_cgroup::CgroupError),
}

/// A failure as runc words it: the subject, then the error as Go prints it, in lower case.
fn text_of(failure: &Failure) -> String {
    if failure.errno == 0 {
        return failure.subject.clone();
    }
    let text = io::Error::from_raw_os_error(failure.errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("{}: {text}", failure.subject)
}

impl wharf_error::HasKind for Error {
    fn kind(&self) -> wharf_error::Kind {
        use wharf_error::Kind;
        match self {
            Error::Usage(_) | Error::NoCommand(_) | Error::NoId | Error::Id(_) | Error::Json { .. } => Kind::Invalid,
            Error::NoSuchContainer => Kind::NotFound,
            Error::Exists | Error::State(_) => Kind::Conflict,
            Error::File { source, .. } => wharf_error::kind_of_io(source),
            Error::Runtime(e) => e.kind(),
            Error::Criu(e) => e.kind(),
            Error::Cgroup(e) => e.kind(),
            Error::Start(_) | Error::Protect(_) | Error::Terminal { .. } | Error::Wait(_) => Kind::System,
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_types::Stage;

    use super::*;

    #[test]
    fn a_missing_command_is_worded_as_docker_clients_know_it() {
        let failure = Failure { stage: Stage::CommandNotFound, errno: 2, subject: "exec: \"/x\": stat /x".to_owned() };
        let text = "unable to start container process: exec: \"/x\": stat /x: no such file or directory";
        assert_eq!(Error::Start(failure).to_string(), text);
    }
}
