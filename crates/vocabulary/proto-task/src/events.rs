//! What a shim tells containerd: `containerd.services.events.ttrpc.v1.Events/Forward`, the events of tasks, and what
//! the shim's own program prints for containerd (`api/events/task.proto`, `api/types/{event,introspection}.proto`).

use crate::{Any, Timestamp};

/// Full name of the service.
pub const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// The only method.
pub const FORWARD: &str = "Forward";

/// Carries one event.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ForwardRequest {
    /// The event with its address.
    #[prost(message, optional, tag = "1")]
    pub envelope: Option<Envelope>,
}

/// An event with its address.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Envelope {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// containerd's namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// For example `/tasks/exit`.
    #[prost(string, tag = "3")]
    pub topic: String,
    /// One of the messages below.
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// A message of `containerd.events` with its name and topic.
pub trait Event: prost::Message {
    /// Full name of the message.
    const TYPE: &'static str;
    /// Where it is published.
    const TOPIC: &'static str;
}

macro_rules! events {
    ($($(#[$about:meta])* $name:ident $topic:literal { $($(#[$of_field:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, prost::Message)]
        pub struct $name { $($(#[$of_field])* pub $field: $type),* }

        impl Event for $name {
            const TYPE: &'static str = concat!("containerd.events.", stringify!($name));
            const TOPIC: &'static str = $topic;
        }
    )*};
}

events! {
    /// A container was made.
    TaskCreate "/tasks/create" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// Its folder.
        #[prost(string, tag = "2")]
        bundle: String,
        /// Where its streams go.
        #[prost(message, optional, tag = "4")]
        io: Option<TaskIo>,
        /// The checkpoint it was made from.
        #[prost(string, tag = "5")]
        checkpoint: String,
        /// Its first process.
        #[prost(uint32, tag = "6")]
        pid: u32,
    }
    /// Its program runs.
    TaskStart "/tasks/start" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// Its first process.
        #[prost(uint32, tag = "2")]
        pid: u32,
    }
    /// A process was deleted.
    TaskDelete "/tasks/delete" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// Its number.
        #[prost(uint32, tag = "2")]
        pid: u32,
        /// Exit code or 128 + signal.
        #[prost(uint32, tag = "3")]
        exit_status: u32,
        /// When it ended.
        #[prost(message, optional, tag = "4")]
        exited_at: Option<Timestamp>,
        /// The exec, or the container for its first process.
        #[prost(string, tag = "5")]
        id: String,
    }
    /// A process ended.
    TaskExit "/tasks/exit" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// The exec, or the container for its first process.
        #[prost(string, tag = "2")]
        id: String,
        /// Its number.
        #[prost(uint32, tag = "3")]
        pid: u32,
        /// Exit code or 128 + signal.
        #[prost(uint32, tag = "4")]
        exit_status: u32,
        /// When.
        #[prost(message, optional, tag = "5")]
        exited_at: Option<Timestamp>,
    }
    /// The kernel killed a process for want of memory.
    TaskOOM "/tasks/oom" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
    }
    /// A further process was prepared.
    TaskExecAdded "/tasks/exec-added" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// The exec.
        #[prost(string, tag = "2")]
        exec_id: String,
    }
    /// A further process runs.
    TaskExecStarted "/tasks/exec-started" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// The exec.
        #[prost(string, tag = "2")]
        exec_id: String,
        /// Its number.
        #[prost(uint32, tag = "3")]
        pid: u32,
    }
    /// All processes stand still.
    TaskPaused "/tasks/paused" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
    }
    /// They go on.
    TaskResumed "/tasks/resumed" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
    }
    /// A checkpoint was written.
    TaskCheckpointed "/tasks/checkpointed" {
        /// The container.
        #[prost(string, tag = "1")]
        container_id: String,
        /// Where.
        #[prost(string, tag = "2")]
        checkpoint: String,
    }
}

/// Where a container's streams go.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TaskIo {
    /// FIFO of input.
    #[prost(string, tag = "1")]
    pub stdin: String,
    /// FIFO of output.
    #[prost(string, tag = "2")]
    pub stdout: String,
    /// FIFO of errors.
    #[prost(string, tag = "3")]
    pub stderr: String,
    /// Whether it has a terminal.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
}

/// What the shim's program prints for `-info`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RuntimeInfo {
    /// The runtime, `io.containerd.wharf.v2`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
}

/// A runtime's version.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RuntimeVersion {
    /// For people.
    #[prost(string, tag = "1")]
    pub version: String,
    /// Of the source.
    #[prost(string, tag = "2")]
    pub revision: String,
}

/// `containerd.runc.v1.CheckpointOptions`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CheckpointOptions {
    /// Whether the container ends.
    #[prost(bool, tag = "1")]
    pub exit: bool,
    /// Allow TCP connections.
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    /// Allow unix sockets that lead outside.
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    /// Allow terminals.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    /// Allow file locks.
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    /// Namespaces left empty.
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    /// What criu does with control groups.
    #[prost(string, tag = "7")]
    pub cgroups_mode: String,
    /// Where the images go, instead of the request's path.
    #[prost(string, tag = "8")]
    pub image_path: String,
    /// Where criu works.
    #[prost(string, tag = "9")]
    pub work_path: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn events_have_containerds_names_and_numbers() {
        assert_eq!((TaskExit::TYPE, TaskOOM::TOPIC), ("containerd.events.TaskExit", "/tasks/oom"));
        let event = TaskExit { container_id: "c".into(), id: "e".into(), pid: 7, exit_status: 9, exited_at: None };
        assert_eq!(event.encode_to_vec(), b"\x0a\x01c\x12\x01e\x18\x07\x20\x09");
    }
}
