//! The one status record of a failed start: which step failed, with which errno, about what.
//!
//! The runtime makes it, the shim carries it, the engine turns it into Docker's message and exit code. No layer
//! searches text (the source of many of moby's wrong exit codes).

use serde::{Deserialize, Serialize};

/// The step of starting a process that failed, in the order in which the steps happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The request or the OCI configuration cannot be carried out as written.
    Config,
    /// Creating or joining a namespace.
    Namespace,
    /// Writing id maps.
    IdMap,
    /// Creating the cgroup, setting limits or joining it.
    Cgroup,
    /// Mounting the root file system.
    Rootfs,
    /// One of the configuration's mounts.
    Mount,
    /// Creating a device node.
    Device,
    /// pivot_root(2) and what surrounds it.
    Pivot,
    /// Setting a sysctl.
    Sysctl,
    /// hostname, rlimits, keyring, scheduler and the like.
    Process,
    /// Resolving or setting user and groups.
    User,
    /// Capabilities.
    Capability,
    /// Loading the seccomp filter.
    Seccomp,
    /// AppArmor or SELinux label.
    Label,
    /// An OCI hook.
    Hook,
    /// The console (pty).
    Console,
    /// Changing to the working directory.
    WorkingDirectory,
    /// The command was not found: exit code 127.
    CommandNotFound,
    /// The command was found and cannot be executed: exit code 126.
    CommandNotExecutable,
    /// execve(2) failed otherwise.
    Exec,
}

/// Why a process of a container could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step.
    pub stage: Stage,
    /// The kernel's error number, 0 if no system call failed.
    pub errno: i32,
    /// What the step was about: a path, a name, a limit. For people.
    pub subject: String,
}

impl Failure {
    /// The exit code that `docker run` gives for this failure: 127, 126, or 128 (Docker's "could not start"; the
    /// CLI shows 125 for it where the daemon answered with an error).
    pub fn exit_code(&self) -> u8 {
        match self.stage {
            Stage::CommandNotFound => 127,
            Stage::CommandNotExecutable => 126,
            _ => 128,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.stage, self.subject)?;
        if self.errno != 0 {
            write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
