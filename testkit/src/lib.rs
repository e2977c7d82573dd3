//! The end-to-end harness: temporary daemons, the clients that drive them, and the search for what they left behind.
//!
//! Every daemon lives under a folder, a bridge, a firewall table and a cgroup parent of its own, so tests run side by
//! side on one host. The binaries under test are those in `WHARF_BIN_DIR` (default: the `quick` profile's folder of this
//! workspace, which `make test` builds first).

pub mod build;
mod client;
mod daemon;
mod image;
pub mod moby;
pub mod plugin;
pub mod registry;
mod residue;
mod rest;
pub mod vm;
mod wait;

pub use client::{Cli, Outcome, Session, run};
pub use daemon::{Daemon, DaemonOptions};
pub use image::{base_image, busybox, busybox_tar};
pub use residue::Residue;
pub use rest::{Response, Rest};
pub use wait::{DEADLINE, eventually};

use std::path::PathBuf;

/// The folder of the binaries under test.
///
/// # Panics
/// When neither `WHARF_BIN_DIR` nor the default folder holds a `dockerd`.
pub fn binaries() -> PathBuf {
    let folder = match std::env::var_os("WHARF_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let top = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target");
            top.join(format!("{}-unknown-linux-gnu/quick", std::env::consts::ARCH))
        }
    };
    assert!(folder.join("dockerd").exists(), "no dockerd in {}: run `make binaries` first", folder.display());
    folder
}
