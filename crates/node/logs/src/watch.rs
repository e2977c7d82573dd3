//! Waiting for a log to grow: inotify on its folder and an ending signal, behind one epoll descriptor.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd};
use rustix::fs::inotify;

/// Tells a following [`crate::Reader`], from any thread, that the container is done: it reads to the end and stops.
#[derive(Clone, Debug)]
pub struct Ending {
    signal: Arc<OwnedFd>,
}

impl Ending {
    /// Ends the following. Idempotent.
    pub fn finish(&self) {
        // The counter can only be full after 2^64 calls, and then it is readable anyway.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    epoll: OwnedFd,
    inotify: OwnedFd,
    signal: Arc<OwnedFd>,
    finishing: bool,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Watch> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for fd in [&inotify, &signal] {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Watch { epoll, inotify, signal: Arc::new(signal), finishing: false })
    }

    /// Watches a folder. Adding it twice is one watch.
    pub(crate) fn add(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE;
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        inotify::add_watch(&self.inotify, path, flags)?;
        Ok(())
    }

    pub(crate) fn ending(&self) -> Ending {
        Ending { signal: Arc::clone(&self.signal) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Forgets the events so far: whoever calls this looks at the files afterwards.
    pub(crate) fn clear(&mut self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        while let Ok((events, _)) = rustix::io::read(&self.inotify, &mut buffer)
            && !events.is_empty()
        {}
    }

    /// Whether [`Ending::finish`] was called.
    pub(crate) fn is_finishing(&mut self) -> bool {
        let mut counter = [0; 8];
        self.finishing |= rustix::io::read(&self.signal, &mut counter).is_ok();
        self.finishing
    }

    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        // A time-out beyond what the kernel takes is none at all.
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(n) => Ok(n > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
