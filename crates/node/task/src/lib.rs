//! dockerd's side of the task protocol: spawn, adopt, call and attach to shims.
//!
//! ```text
//! <exec-root>/tasks/<id>/   config.json  shim.sock  shim.pid  records  rootfs/
//! ```

mod error;
mod folder;
mod record;
mod shim;
mod spawn;

pub use error::TaskError;
pub use folder::TaskFolder;
pub use record::{Record, RecordKind, boot_id};
pub use shim::{AttachRequest, Attached, CreateRequest, ExecRequest, Exit, Shim, State, Status, Stdin};
pub use spawn::{Adopted, Relay, Shims, SpawnRequest};
