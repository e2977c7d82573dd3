//! Shims that are started ahead. One waits at a time; a start that comes before the next is ready starts its own.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_proto_task::spare::MOST_DESCRIPTORS;
use wharf_sys::spawn::Spawned;

/// How long the next spare is put off, so that it does not compete with the start that took the last one.
const PAUSE: Duration = Duration::from_millis(10);

/// A waiting shim.
#[derive(Debug)]
struct Spare {
    socket: OwnedFd,
    process: Spawned,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: Option<Spare>,
    wanted: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    shelf: Mutex<Shelf>,
    wake: Condvar,
}

impl Shared {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shims that wait. With the last owner goes the thread that makes them, and the one that waits.
#[derive(Debug)]
pub(crate) struct Spares(Arc<Shared>);

impl Drop for Spares {
    fn drop(&mut self) {
        let mut shelf = self.0.shelf();
        shelf.closed = true;
        // It sees the end of its socket.
        shelf.ready = None;
        self.0.wake.notify_one();
    }
}

impl Spares {
    /// Starts the thread that makes spares by `start`, which is given the spare's end of the socket.
    pub(crate) fn new(start: impl Fn(BorrowedFd<'_>) -> io::Result<Spawned> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        std::thread::Builder::new()
            .name("spares".to_owned())
            .stack_size(128 << 10)
            .spawn(move || serve(&own, &start))?;
        Ok(Self(shared))
    }

    /// Gives the waiting shim its work, and asks for the next. `None` if none waits, or it is gone.
    pub(crate) fn give(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Option<Spawned> {
        let spare = {
            let mut shelf = self.0.shelf();
            shelf.wanted = true;
            self.0.wake.notify_one();
            shelf.ready.take()
        }?;
        if descriptors.len() > MOST_DESCRIPTORS {
            return None;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(descriptors));
        match sendmsg(&spare.socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Some(spare.process),
            Err(_) => {
                // Somebody ended it; it is our child and would stay a zombie.
                drop(spare.socket);
                let _ = waitid(WaitId::PidFd(spare.process.pidfd.as_fd()), WaitIdOptions::EXITED);
                None
            }
        }
    }
}

fn serve(shared: &Shared, start: &dyn Fn(BorrowedFd<'_>) -> io::Result<Spawned>) {
    loop {
        let mut shelf = shared.shelf();
        while !(shelf.closed || shelf.wanted && shelf.ready.is_none()) {
            shelf = shared.wake.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
        if shelf.closed {
            return;
        }
        shelf.wanted = false;
        drop(shelf);
        std::thread::sleep(PAUSE);
        let made = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)
            .and_then(|(ours, theirs)| Ok(Spare { socket: ours, process: start(theirs.as_fd())? }));
        // Where it fails, the next start finds none and says why it cannot start one.
        if let Ok(spare) = made {
            let mut shelf = shared.shelf();
            if !shelf.closed {
                shelf.ready = Some(spare);
            }
        }
    }
}
