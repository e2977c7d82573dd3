//! The supervisor of one container: event loop, stdio, attach, exit records, task service. Synchronous, one thread.
//!
//! ```text
//!            ttRPC ──▶ client ──▶ service ─┐                       ┌─▶ spool (json-file, local)
//! dockerd ──▶ listener                     ├─▶ supervisor ─ output ┤
//!            raw ────▶ attached ──▶ input ─┘   │   ▲               └─▶ attached clients
//!                                     container  SIGCHLD ──▶ exit ──▶ records, Wait
//! ```
//!
//! One epoll set holds everything; nothing here waits elsewhere than in it, save file writes and the runtime's own
//! start of a process. A client that stops reading holds up nobody: output goes to the spool first, and the client
//! catches up from there by offset. Only where nothing else holds the bytes (no spool, or rotation would take them away) the
//! process itself is made to wait.

mod args;
mod attached;
mod client;
mod container;
mod containerd;
mod datagrams;
mod exit;
mod fifo;
mod foreign;
mod hold;
mod input;
mod metrics;
mod output;
mod poll;
mod process;
mod publish;
mod records;
mod relay;
mod service;
mod spare;
mod supervisor;

pub use args::{Args, ArgsError, Containerd, RelayArg, Runtime};
pub use containerd::{answer as answer_containerd, is_named_by_containerd};
pub use spare::wait_as_spare;
pub use supervisor::{Failed, run};
