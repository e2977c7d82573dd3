//! A shim that waits for its container: started ahead by dockerd, so that a start needs no exec on its way.
//!
//! It has a `SOCK_SEQPACKET` socket as descriptor 3, on which one message comes: the numbers that the passed descriptors
//! are to get, as decimals with commas, then the command line's words, all ended by NUL. The first descriptor becomes the
//! working directory and has no number. If dockerd goes first, so does the spare.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use wharf_proto_task::spare::{MOST_BYTES, MOST_DESCRIPTORS};
use wharf_sys::descriptor::{duplicate_above, inherit, place};

use crate::supervisor::{Failed, system};

/// The socket's number.
const SOCKET_FD: i32 = 3;

/// Waits for the one message and puts the descriptors in their places. Returns the command line's words, or `None` if
/// there is no work to come.
pub fn wait_as_spare() -> Result<Option<Vec<OsString>>, Failed> {
    rustix::thread::set_name(c"wharf-shim").map_err(system("naming the process"))?;
    let socket = inherit(SOCKET_FD).map_err(system("taking the spare's socket"))?;
    wharf_runtime::prepare();
    let Some(Work { bytes, passed }) = receive(&socket)? else { return Ok(None) };
    drop(socket);
    let mut parts = bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|b| *b == 0);
    let numbers = parts.next().and_then(|list| std::str::from_utf8(list).ok()).unwrap_or_default();
    let numbers: Result<Vec<i32>, _> = numbers.split(',').map(str::parse).collect();
    let wrong = || system("reading a spare's work")(Errno::PROTO);
    let numbers = numbers.map_err(|_| wrong())?;
    let words: Vec<&[u8]> = parts.collect();
    take_places(passed, &numbers).map_err(system("placing a spare's descriptors"))?;
    let shown: Vec<&[u8]> = [b"wharf-shim".as_slice()].into_iter().chain(words.iter().copied()).collect();
    // Only what ps(1) shows: nothing depends on it.
    let _ = wharf_sys::title::set_words(&shown);
    Ok(Some(words.into_iter().map(|word| OsString::from_vec(word.to_vec())).collect()))
}

/// The one message.
struct Work {
    bytes: Vec<u8>,
    passed: Vec<OwnedFd>,
}

/// `None` when the other end was closed.
fn receive(socket: &OwnedFd) -> Result<Option<Work>, Failed> {
    let mut bytes = vec![0; MOST_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other.map_err(system("waiting as a spare"))?.bytes,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(Some(Work { bytes, passed: rights.flatten().collect() }))
}

fn take_places(passed: Vec<OwnedFd>, numbers: &[i32]) -> std::io::Result<()> {
    if passed.len() != numbers.len() + 1 || numbers.iter().any(|n| !(3..1 << 16).contains(n)) {
        return Err(Errno::PROTO.into());
    }
    // Out of the way of each other's places first.
    let lowest = numbers.iter().max().map_or(3, |n| n + 1);
    let moved: Vec<OwnedFd> =
        passed.iter().map(|fd| duplicate_above(fd.as_fd(), lowest)).collect::<std::io::Result<_>>()?;
    drop(passed);
    let (directory, rest) = moved.split_first().ok_or(Errno::PROTO)?;
    rest.iter().zip(numbers).try_for_each(|(fd, number)| place(fd.as_fd(), *number))?;
    Ok(rustix::process::fchdir(directory)?)
}
