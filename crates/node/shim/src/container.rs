//! The container as the runtime library has it: the only file that calls `wharf_runtime`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use wharf_oci::runtime as oci;
use wharf_runtime::{CreateRequest, ExecRequest, Gate, Stdio};
use wharf_types::{Failure, Mount, Stage};

/// A process just made: its pid and, with a terminal, the controlling end.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) console: Option<OwnedFd>,
}

/// Reads `config.json` in the bundle and makes the container.
pub(crate) fn create(
    id: &str,
    bundle: &Path,
    rootfs: &[Mount],
    netns: Option<BorrowedFd<'_>>,
    stdio: Option<[BorrowedFd<'_>; 3]>,
) -> Result<(wharf_runtime::Container, Made), Failure> {
    let path = bundle.join("config.json");
    let wrong = |errno, what: String| Failure { stage: Stage::Config, errno, subject: what };
    let json = std::fs::read(&path)
        .map_err(|e| wrong(e.raw_os_error().unwrap_or(0), format!("reading {}", path.display())))?;
    let spec: oci::Spec = serde_json::from_slice(&json).map_err(|e| wrong(0, format!("config.json: {e}")))?;
    let mut container = wharf_runtime::create(CreateRequest {
        id,
        bundle,
        spec: &spec,
        rootfs_mounts: rootfs,
        stdio: stdio.map_or(Stdio::Terminal, Stdio::Descriptors),
        netns,
        gate: Gate::Caller,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        systemd: false,
        rootless: false,
    })?;
    let console = container.take_console();
    let pid = container.pid();
    Ok((container, Made { pid, console }))
}

/// Runs a further process from an OCI `process` document.
pub(crate) fn exec(
    container: &wharf_runtime::Container,
    process: &oci::Process,
    stdio: Option<[OwnedFd; 3]>,
) -> Result<Made, Failure> {
    let ends = stdio.as_ref().map(|fds| fds.each_ref().map(AsFd::as_fd));
    let stdio = ends.map_or(Stdio::Terminal, Stdio::Descriptors);
    let made = container.exec(ExecRequest { process, stdio, preserve_fds: 0, groups: &[] })?;
    Ok(Made { pid: made.pid, console: made.console })
}
