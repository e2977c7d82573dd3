//! The one socket between the caller and the process it cloned: requests, readiness, failures, the terminal.
//!
//! SOCK_SEQPACKET, one byte of kind before the rest, so that a message is whole or not there. It is close-on-exec in the
//! child: end of file after the gate means that execve(2) succeeded.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use wharf_types::{Failure, Stage};

/// What the child tells.
#[derive(Debug)]
pub(crate) enum Message {
    /// It is in its new user namespace and waits for id maps.
    NeedIdMaps,
    /// Its mounts are done; the hooks `prestart` and `createRuntime` are due.
    NeedHooks,
    /// The controlling end of its terminal.
    Console(OwnedFd),
    /// The process that was made on its behalf.
    Process(OwnedFd),
    /// It wants to know its process id in the caller's namespace.
    NeedPid,
    /// Its network namespace is there to take devices.
    NeedDevices,
    /// It is prepared and waits at the gate.
    Ready,
    /// It gave up.
    Failed(Failure),
    /// The other end is closed: execve(2) succeeded, or the process died.
    Closed,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

const LIMIT: usize = 32 * 1024;

/// The caller's end and the child's.
pub(crate) fn pair() -> rustix::io::Result<(Channel, Channel)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Channel(a), Channel(b)))
}

impl Channel {
    /// Sends a kind without content.
    fn tell(&self, bytes: &[u8]) -> rustix::io::Result<()> {
        // NOSIGNAL: a caller that died must not kill us by SIGPIPE before we can act on it.
        rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL).map(drop)
    }

    pub(crate) fn need_id_maps(&self) -> rustix::io::Result<()> {
        self.tell(b"M")?;
        self.wait_for_leave()
    }

    pub(crate) fn need_hooks(&self) -> rustix::io::Result<()> {
        self.tell(b"H")?;
        self.wait_for_leave()
    }

    pub(crate) fn need_devices(&self) -> rustix::io::Result<()> {
        self.tell(b"N")?;
        self.wait_for_leave()
    }

    /// Asks for the sender's process id as the receiver numbers it.
    pub(crate) fn need_pid(&self) -> rustix::io::Result<i32> {
        self.tell(b"I")?;
        let mut bytes = [0u8; 4];
        loop {
            match rustix::net::recv(&self.0, &mut bytes, RecvFlags::empty()) {
                Ok((4, _)) => return Ok(i32::from_ne_bytes(bytes)),
                Ok(_) => return Err(Errno::PIPE),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Answers [`Message::NeedPid`].
    pub(crate) fn give_pid(&self, pid: i32) -> rustix::io::Result<()> {
        self.tell(&pid.to_ne_bytes())
    }

    pub(crate) fn ready(&self) -> rustix::io::Result<()> {
        self.tell(b"R")
    }

    pub(crate) fn failed(&self, failure: &Failure) -> rustix::io::Result<()> {
        self.tell(&encode(failure))
    }

    pub(crate) fn console(&self, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.hand_over(b"C", fd)
    }

    pub(crate) fn process(&self, pidfd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.hand_over(b"P", pidfd)
    }

    fn hand_over(&self, kind: &[u8], fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.0, &[IoSlice::new(kind)], &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Lets the child go on.
    pub(crate) fn give_leave(&self) -> rustix::io::Result<()> {
        self.tell(b"g")
    }

    /// Waits for leave.
    ///
    /// Errors: `EPIPE` when the caller is gone.
    pub(crate) fn wait_for_leave(&self) -> rustix::io::Result<()> {
        let mut byte = [0u8; 1];
        loop {
            match rustix::net::recv(&self.0, &mut byte, RecvFlags::empty()) {
                Ok((1.., _)) => return Ok(()),
                Ok((0, _)) => return Err(Errno::PIPE),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits for the child's next message.
    pub(crate) fn receive(&self) -> rustix::io::Result<Message> {
        let mut bytes = vec![0u8; LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                // The peer died with our message unread.
                Err(Errno::CONNRESET) => return Ok(Message::Closed),
                other => break other?.bytes,
            }
        };
        let passed = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(match (bytes[..received].first(), passed) {
            (None, _) => Message::Closed,
            (Some(b'M'), _) => Message::NeedIdMaps,
            (Some(b'H'), _) => Message::NeedHooks,
            (Some(b'C'), Some(fd)) => Message::Console(fd),
            (Some(b'P'), Some(fd)) => Message::Process(fd),
            (Some(b'I'), _) => Message::NeedPid,
            (Some(b'N'), _) => Message::NeedDevices,
            (Some(b'R'), _) => Message::Ready,
            _ => Message::Failed(decode(&bytes[..received])),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A failure as bytes, cut to what one message holds.
pub(crate) fn encode(failure: &Failure) -> Vec<u8> {
    let mut short = failure.clone();
    let mut end = short.subject.len().min(4096);
    while !short.subject.is_char_boundary(end) {
        end -= 1;
    }
    short.subject.truncate(end);
    let mut bytes = vec![b'F'];
    // Serialising three plain fields into memory cannot fail; an empty body is read back as a failure all the same.
    bytes.extend(serde_json::to_vec(&short).unwrap_or_default());
    bytes
}

/// A failure from bytes.
pub(crate) fn decode(bytes: &[u8]) -> Failure {
    serde_json::from_slice(bytes.get(1..).unwrap_or_default()).unwrap_or_else(|_| Failure {
        stage: Stage::Process,
        errno: 0,
        subject: "the container's first process sent a message that cannot be read".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_and_a_descriptor_arrive_whole() {
        let (parent, child) = pair().expect("pair");
        let failure = Failure { stage: Stage::Mount, errno: 2, subject: "ä".repeat(5000) };
        child.failed(&failure).expect("sent");
        child.console(std::io::stdin().as_fd()).expect("sent");
        drop(child);
        match parent.receive().expect("received") {
            Message::Failed(f) => assert_eq!((f.stage, f.errno, f.subject.len()), (Stage::Mount, 2, 4096)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(parent.receive().expect("received"), Message::Console(_)));
        assert!(matches!(parent.receive().expect("received"), Message::Closed));
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
