//! Network namespaces of threads.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use wharf_types::IdMaps;

use crate::NetworkError;

fn failed(action: &'static str) -> impl Fn(Errno) -> NetworkError {
    move |e| NetworkError::Io { action, subject: "network namespace".to_owned(), source: e.into() }
}

/// Opens the calling thread's network namespace.
pub(crate) fn current() -> Result<OwnedFd, NetworkError> {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("opening"))
}

/// Runs `work` with the calling thread in a fresh network namespace, then brings the thread back to `home`. With `users` it belongs
/// to a user namespace of its own, which lives as long as it does.
pub(crate) fn in_new<T>(
    home: &OwnedFd,
    users: Option<&IdMaps>,
    work: impl FnOnce(OwnedFd) -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    if let Some(users) = users {
        let failed =
            |source| NetworkError::Io { action: "making", subject: "user and network namespace".to_owned(), source };
        let (uids, gids) = users.files();
        let made = wharf_sys::users::make(&uids, &gids, true).map_err(failed)?.network;
        let made = made.ok_or_else(|| failed(Errno::NOSYS.into()))?;
        let again = rustix::io::fcntl_dupfd_cloexec(&made, 0).map_err(|e| failed(e.into()))?;
        return within(home, made.as_fd(), || work(again));
    }
    // Deprecated because the flags FILES and VM can break Rust's assumptions; NEWNET touches neither.
    #[allow(deprecated)]
    rustix::thread::unshare(UnshareFlags::NEWNET).map_err(failed("making"))?;
    let _return = Return(home);
    work(current()?)
}

/// As [`in_new`], with the namespace made in a user namespace that is there.
pub(crate) fn in_new_of<T>(
    home: &OwnedFd,
    user: BorrowedFd<'_>,
    work: impl FnOnce(OwnedFd) -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    let failed = |source| NetworkError::Io { action: "making", subject: "network namespace".to_owned(), source };
    let made = wharf_sys::users::network_in(user).map_err(failed)?;
    let again = rustix::io::fcntl_dupfd_cloexec(&made, 0).map_err(|e| failed(e.into()))?;
    within(home, made.as_fd(), || work(again))
}

/// Runs `work` with the calling thread in an existing network namespace, then brings the thread back to `home`.
pub(crate) fn within<T>(
    home: &OwnedFd,
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(failed("entering"))?;
    let _return = Return(home);
    work()
}

struct Return<'a>(&'a OwnedFd);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            // The caller came from there with the right to make namespaces, so this cannot be refused. If it were,
            // the thread would go on to serve other work in a container's namespace.
            std::process::abort();
        }
    }
}
