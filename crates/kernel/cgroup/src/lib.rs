//! Control groups v1, v2 and hybrid: paths, limits, statistics, device filter, OOM watch.
//!
//! ```text
//! let layout = Layout::detect()?;                                   // once per process
//! let group = Cgroup::create(&layout, "/docker/<id>", &resources)?; // folders made, limits set, nobody in it
//! let entrance = group.entrance()?;                                 // descriptors, opened before clone3
//! clone3(CLONE_INTO_CGROUP, entrance.clone_target())                // where the host has a v2 hierarchy
//! // in the child, before anything runs:
//! entrance.enter(cloned_into)?; unshare(CLONE_NEWCGROUP)                       // in this order: the namespace's root is where it is made
//! let watch = group.watch_oom()?;
//! group.kill_all()?; group.delete(deadline)?;
//! ```
//!
//! The cgroup namespace must be made by unshare(2) after [`Entrance::enter`]: clone3's `CLONE_NEWCGROUP` takes the *parent's*
//! group as root, even together with `CLONE_INTO_CGROUP` (`copy_cgroup_ns` runs before the child is moved).

mod detail;
mod devices;
mod error;
mod file;
mod freezer;
mod group;
mod layout;
mod oom;
mod setting;
mod stats;
mod stats_read;
pub mod systemd;

pub use detail::{Counter, CpuSet, Detail, Pressure, Stall};
pub use error::CgroupError;
pub use group::{Cgroup, Entrance};
pub use layout::{Layout, Mode};
pub use oom::OomWatch;
pub use stats::{BlockEntry, BlockStats, CpuStats, HugetlbStats, MemoryStats, PidsStats, Stats, Throttling};
