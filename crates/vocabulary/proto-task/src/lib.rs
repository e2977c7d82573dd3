//! Messages and framing of the containerd task protocol (ttRPC) plus our extensions. Pure: no sockets.
//!
//! Message and field numbers are those of containerd's `api/runtime/task/v2/shim.proto`, `api/types/mount.proto`,
//! `api/types/task/task.proto` and of `google/rpc/status.proto`; the extension service is our own.

pub mod events;
mod frame;
mod google;
pub mod metrics;
pub mod record;
mod rpc;
pub mod shim;
pub mod spare;
pub mod task;

pub use frame::{Frame, FrameError, HEADER_LEN, Header, Kind as FrameKind, MAX_LEN};
pub use google::{Any, Empty, Timestamp};
pub use prost::Message;
pub use rpc::{Code, KeyValue, Request, Response, Status};
