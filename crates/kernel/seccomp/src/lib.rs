//! OCI seccomp profiles to classic BPF, and Docker's default profile as data.
//!
//! ```text
//! default_profile(…) ─▶ oci::LinuxSeccomp ─▶ compile ─▶ Program ─▶ sys: seccomp(SECCOMP_SET_MODE_FILTER, flags, program)
//! ```
//!
//! Everything here is pure. A filter answers what the one that runc makes through libseccomp answers: unknown names are
//! ignored, foreign architectures are killed, and system calls newer than every call the profile names give ENOSYS instead of
//! a denying default, so that libraries fall back to older calls.

mod arch;
mod compile;
mod policy;
mod profile;
mod program;

pub use arch::{Arch, Syscall, X32_BIT};
pub use compile::{CompileError, compile};
pub use profile::{Situation, default_profile, usual_profile};
pub use program::Program;
