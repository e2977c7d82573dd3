//! Local volumes on the host: driver options, mounting what is behind a volume, sub-paths opened beneath a descriptor.
//!
//! ```text
//! <data-root>/volumes/<name>/_data         the content, or where it is mounted while a container uses it
//! <data-root>/volumes/<name>/image         the file system of a volume with a size (Wharf extra)
//! <exec-root>/mounts/<container>/<n>       a sub-path or an image, held for one container while it runs
//! ```

mod disk;
mod error;
mod flags;
mod host;
mod options;
mod stage;

pub use disk::make_disk;
pub use error::VolumeError;
pub use flags::MountWords;
pub use host::{Propagation, is_mount_point, propagation_of, recursive_read_only, unmount_all};
pub use options::{Backing, LocalOptions, parse_size};
pub use stage::{Staging, open_beneath};
