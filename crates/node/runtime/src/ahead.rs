//! What can be known before there is a container. A shim that waits for its work does this meanwhile, so that a start does not.

use std::sync::OnceLock;

use wharf_cgroup::{CgroupError, Layout};
use wharf_oci::runtime as oci;
use wharf_seccomp::{CompileError, Program};

struct Ready {
    layout: Option<Layout>,
    /// The profile most containers have, and its filter.
    filter: Option<(oci::LinuxSeccomp, Program)>,
}

static READY: OnceLock<Ready> = OnceLock::new();

/// Looks for the host's cgroups and compiles the usual seccomp profile, for all [`crate::create`] of this process. What fails
/// here fails again, and is told, where it is needed.
pub fn prepare() {
    READY.get_or_init(|| {
        let usual = wharf_seccomp::usual_profile();
        // Read back as a container's will be: the code for it is in memory then, too.
        let read = serde_json::to_vec(&usual).and_then(|text| serde_json::from_slice(&text));
        let filter = read.ok().and_then(|profile| Some((wharf_seccomp::compile(&profile).ok()?, profile)));
        Ready { layout: Layout::detect().ok(), filter: filter.map(|(program, profile)| (profile, program)) }
    });
}

pub(crate) fn layout() -> Result<Layout, CgroupError> {
    match READY.get().and_then(|ready| ready.layout.as_ref()) {
        Some(layout) => Ok(layout.clone()),
        None => Layout::detect(),
    }
}

pub(crate) fn filter(profile: &oci::LinuxSeccomp) -> Result<Program, CompileError> {
    match READY.get().and_then(|ready| ready.filter.as_ref()) {
        Some((usual, program)) if usual == profile => Ok(program.clone()),
        _ => wharf_seccomp::compile(profile),
    }
}
