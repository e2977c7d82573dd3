//! Our additive service `wharf.shim.v1.Shim`: attach, and the typed reason of a failed start.

use prost::Message;
use wharf_types::Stage;

use crate::Any;

/// Full name of the service.
pub const SERVICE: &str = "wharf.shim.v1.Shim";

/// The method that turns a connection into a process's raw stdio.
pub const ATTACH: &str = "Attach";

/// The method that has the shim take sockets from dockerd.
pub const HOLD: &str = "Hold";

/// Type name of [`Failure`] in a status detail.
pub const FAILURE_TYPE: &str = "wharf.shim.v1.Failure";

/// Type name of the statistics in a Stats response: `wharf_cgroup::Stats` in JSON.
pub const STATS_TYPE: &str = "wharf.cgroup.v1.Stats";

/// Value of the `stdin` field of Create and Exec: the process gets a pipe that stays open whoever comes and goes.
pub const STDIN_KEPT: &str = "attach:";

/// Value of the `stdin` field of Create and Exec: the pipe is closed when an attached client ends its input
/// (Docker's `StdinOnce`; every exec with stdin).
pub const STDIN_ONCE: &str = "attach:once";

/// Asks for a process's stdio on this connection. After the response the connection carries raw bytes.
///
/// Shim → client: frames of Docker's stdcopy header (stream byte, three zero bytes, big-endian length), or plain
/// bytes if the process has a terminal; end of file when the process is done and all was delivered. Client → shim:
/// stdin; half-close ends it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AttachRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The exec, empty for the container's first process.
    #[prost(string, tag = "2")]
    pub exec_id: String,
    /// Whether the client sends stdin.
    #[prost(bool, tag = "3")]
    pub stdin: bool,
    /// Whether the client wants stdout (with a terminal: all output).
    #[prost(bool, tag = "4")]
    pub stdout: bool,
    /// Whether the client wants stderr.
    #[prost(bool, tag = "5")]
    pub stderr: bool,
    /// Where output starts.
    #[prost(enumeration = "LogsFrom", tag = "6")]
    pub logs_from: i32,
}

/// Where an attached client's output starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum LogsFrom {
    /// With what the process writes from now on.
    Now = 0,
    /// With the first byte of this run of the container, as far as the spool's current file still holds it.
    Run = 1,
    /// With the first byte that the spool does not hold yet, so that everything before it can be read from there: an
    /// unterminated line comes whole.
    Line = 2,
}

/// The answer to [`AttachRequest`]: where in the spool the delivered output begins, so that a reader of the spool can
/// show everything before it, without gap or overlap. Zeros if there is no spool.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct AttachResponse {
    /// Inode number of the spool's file.
    #[prost(uint64, tag = "1")]
    pub spool_inode: u64,
    /// Byte offset in that file.
    #[prost(uint64, tag = "2")]
    pub spool_offset: u64,
    /// Whether the process has a terminal, so that bytes come without frame headers.
    #[prost(bool, tag = "3")]
    pub terminal: bool,
}

/// Has the shim duplicate sockets of another process (pidfd_getfd(2)) and hold them for its lifetime.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HoldRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whose they are: the caller.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Their numbers there.
    #[prost(int32, repeated, tag = "3")]
    pub sockets: Vec<i32>,
    /// Those whose connections the shim relays.
    #[prost(message, repeated, tag = "4")]
    pub relays: Vec<HeldRelay>,
}

/// A listening TCP socket or bound UDP socket of [`HoldRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeldRelay {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub socket: i32,
    /// Address and port that its connections are relayed to.
    #[prost(string, tag = "2")]
    pub to: String,
}

/// The answer to [`HoldRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HoldResponse {
    /// The numbers that `sockets` have in the shim, in their order.
    #[prost(int32, repeated, tag = "1")]
    pub sockets: Vec<i32>,
}

/// [`wharf_types::Failure`] on the wire.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Failure {
    /// The stage's position in [`STAGES`].
    #[prost(uint32, tag = "1")]
    pub stage: u32,
    /// The kernel's error number, 0 if none.
    #[prost(int32, tag = "2")]
    pub errno: i32,
    /// What the stage was about.
    #[prost(string, tag = "3")]
    pub subject: String,
}

/// Stages by wire number. Append only.
pub const STAGES: &[Stage] = &[
    Stage::Config,
    Stage::Namespace,
    Stage::IdMap,
    Stage::Cgroup,
    Stage::Rootfs,
    Stage::Mount,
    Stage::Device,
    Stage::Pivot,
    Stage::Sysctl,
    Stage::Process,
    Stage::User,
    Stage::Capability,
    Stage::Seccomp,
    Stage::Label,
    Stage::Hook,
    Stage::Console,
    Stage::WorkingDirectory,
    Stage::CommandNotFound,
    Stage::CommandNotExecutable,
    Stage::Exec,
];

impl Failure {
    /// Packs the record as a status detail.
    pub fn into_any(self) -> Any {
        Any { type_url: FAILURE_TYPE.to_owned(), value: self.encode_to_vec() }
    }

    /// Unpacks a status detail; `None` if it is of another type or of a stage that this build does not know.
    pub fn from_any(any: &Any) -> Option<wharf_types::Failure> {
        if any.type_url != FAILURE_TYPE {
            return None;
        }
        let wire = Failure::decode(any.value.as_slice()).ok()?;
        let stage = *STAGES.get(wire.stage as usize)?;
        Some(wharf_types::Failure { stage, errno: wire.errno, subject: wire.subject })
    }
}

impl From<&wharf_types::Failure> for Failure {
    fn from(failure: &wharf_types::Failure) -> Self {
        // A stage missing from STAGES cannot pass the test below, so the fallback is never taken.
        let stage = STAGES.iter().position(|s| *s == failure.stage).unwrap_or(0) as u32;
        Failure { stage, errno: failure.errno, subject: failure.subject.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_a_wire_number() {
        // `Exec` is the enum's last variant: a stage added without a wire number makes the counts differ.
        assert_eq!(STAGES.len(), Stage::Exec as usize + 1);
        for (n, stage) in STAGES.iter().enumerate() {
            assert_eq!(*stage as usize, n);
            let failure = wharf_types::Failure { stage: *stage, errno: 1, subject: "s".into() };
            assert_eq!(Failure::from_any(&Failure::from(&failure).into_any()), Some(failure));
        }
    }

    #[test]
    fn details_of_other_types_and_unknown_stages_are_passed_over() {
        assert_eq!(Failure::from_any(&Any { type_url: "x".into(), value: vec![] }), None);
        let far = Failure { stage: 999, errno: 0, subject: String::new() }.into_any();
        assert_eq!(Failure::from_any(&far), None);
    }
}
