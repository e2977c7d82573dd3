//! Kernel parameters of the calling thread's network namespace.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::NetworkError;

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

fn failed(action: &'static str, name: &str) -> impl Fn(Errno) -> NetworkError {
    move |e| NetworkError::Io { action, subject: format!("net/{name}"), source: e.into() }
}

/// Opens a parameter for writing. The descriptor keeps the namespace's parameter wherever it is used.
pub(crate) fn open(name: &str) -> Result<OwnedFd, NetworkError> {
    rustix::fs::open(path(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed("opening", name))
}

/// Writes a parameter.
pub(crate) fn write(name: &str, value: &str) -> Result<(), NetworkError> {
    rustix::io::write(&open(name)?, value.as_bytes()).map_err(failed("writing", name))?;
    Ok(())
}

/// Writes a parameter unless this kernel does not have it (built without IPv6, for example).
pub(crate) fn write_if_present(name: &str, value: &str) -> Result<(), NetworkError> {
    match write(name, value) {
        Err(NetworkError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a parameter; `None` if this kernel does not have it.
pub(crate) fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name)).ok().map(|text| text.trim().to_owned())
}
