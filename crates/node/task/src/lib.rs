//! dockerd's side of the task protocol: spawn, adopt, call and attach to shims.
//!
//! ```text
//! <exec-root>/tasks/<id>/   config.json  shim.sock  shim.pid  records  rootfs/  (shim.log: only if there was trouble)
//! ```

mod connection;
mod error;
mod folder;
mod record;
mod shim;
mod spares;
mod spawn;

pub use error::TaskError;
pub use folder::TaskFolder;
pub use record::{boot_id, read_records};
pub use shim::{AttachRequest, Attached, CreateRequest, ExecRequest, Exit, Shim, State, Status, Stdin};
pub use spawn::{Adopted, OtherRuntime, Relay, Shims, SpawnRequest};
pub use wharf_proto_task::record::{Record, RecordKind};
