//! A netlink socket: send many requests at once, read every answer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::decode::{Message, attributes, messages, u32_at};
use crate::encode::{F_DUMP, HEADER, Requests, align};
use crate::error::NetlinkError;

/// Requests per system call: if all are refused, that many answers wait in the socket's receive buffer (208 KiB by
/// default), where each takes about 1 KiB.
const TOGETHER: usize = 64;

const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_TLVS: u16 = 0x200;
const FLAG_INTERRUPTED: u16 = 0x10;
const EXT_ACK_MESSAGE: u16 = 1;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
}

/// A netlink socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn failed(action: &'static str) -> impl Fn(Errno) -> NetlinkError {
    move |source| NetlinkError::Socket { action, source }
}

impl Socket {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// The socket cannot be made: no descriptors left, or a seccomp filter.
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        Self::with_groups(family, 0)
    }

    /// Opens a socket that also hears the events of the given groups: bit n-1 for group n.
    pub fn with_groups(family: Family, groups: u32) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(failed("socket"))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(failed("bind"))?;
        wharf_sys::link::explain_refusals(fd.as_fd()).map_err(|e| {
            let source = Errno::from_io_error(&e).unwrap_or(Errno::OPNOTSUPP);
            NetlinkError::Socket { action: "setsockopt", source }
        })?;
        // The kernel answers within the send; a lost answer must not hang the daemon for ever.
        let limit = (groups == 0).then_some(PATIENCE);
        sockopt::set_socket_timeout(&fd, Timeout::Recv, limit).map_err(failed("setsockopt"))?;
        Ok(Self { fd, sequence: 1 })
    }

    /// Sends all requests with one system call (one for every 64) and waits until they are carried out. The kernel
    /// carries out every request, also those after a refused one.
    ///
    /// # Errors
    /// The first refusal, if any.
    pub fn call(&mut self, requests: &mut Requests) -> Result<(), NetlinkError> {
        let first = self.number(requests);
        let count = requests.len();
        let mut refusal = None;
        // Refusals come unasked, in order; one acknowledgement says that all before it are done.
        let bytes = requests.seal(first, |index| index + 1 == count || (index + 1) % TOGETHER == 0).to_vec();
        let mut sent = 0;
        for part in parts(&bytes, TOGETHER) {
            self.transmit(part)?;
            sent = (sent + TOGETHER).min(count);
            let mut done = false;
            while !done {
                self.receive(|message| {
                    let index = message.sequence.wrapping_sub(first) as usize;
                    if message.kind == ERROR && index < sent {
                        done |= index + 1 == sent;
                        if let Some(error) = refused(message, requests.name(index)) {
                            refusal.get_or_insert(error);
                        }
                    }
                    Ok(())
                })?;
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Has one request carried out by another thread, and returns when that is done, or as soon as `enough` says so of what
    /// is heard meanwhile: the kernel works on after it told what has happened.
    pub(crate) fn call_until(
        mut self,
        requests: &mut Requests,
        mut enough: impl FnMut(&Message<'_>) -> bool,
    ) -> Result<(), NetlinkError> {
        let first = self.number(requests);
        let name = requests.name(0);
        let bytes = requests.seal(first, |_| true).to_vec();
        sockopt::set_socket_timeout(&self.fd, Timeout::Recv, Some(PATIENCE)).map_err(failed("setsockopt"))?;
        let sender = self.fd.try_clone().map_err(|_| failed("dup")(Errno::MFILE))?;
        // A request as short as this is always sent; were it not, nothing would be heard, and the limit ends the wait.
        let work = move || {
            let _ = rustix::net::send(&sender, &bytes, SendFlags::empty());
        };
        let thread = std::thread::Builder::new().name("netlink".into()).stack_size(128 * 1024).spawn(work);
        drop(thread.map_err(|_| failed("thread")(Errno::AGAIN))?);
        let (mut done, mut outcome) = (false, Ok(()));
        while !done {
            self.receive(|message| {
                if message.kind == ERROR && message.sequence == first {
                    done = true;
                    outcome = refused(message, name).map_or(Ok(()), Err);
                } else {
                    done |= enough(message);
                }
                Ok(())
            })?;
        }
        outcome
    }

    /// Sends one request and hands the messages of its answer to `each`.
    pub fn query(
        &mut self,
        requests: &mut Requests,
        mut each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let name = requests.name(0);
        let first = self.send(requests, |_| true)?;
        let mut done = false;
        let mut outcome = Ok(());
        while !done {
            self.receive(|message| {
                if message.sequence != first {
                    return Ok(());
                }
                if message.kind == ERROR {
                    done = true;
                    if let Some(error) = refused(message, name) {
                        outcome = Err(error);
                    }
                    return Ok(());
                }
                each(message)
            })?;
        }
        outcome
    }

    /// Asks for a whole table and hands each message to `each`. A table that changed meanwhile is read again, after
    /// `restart` was told to forget what it saw.
    pub fn dump<S: Default>(
        &mut self,
        build: impl Fn(&mut Requests, u16),
        mut each: impl FnMut(&mut S, &Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<S, NetlinkError> {
        // A busy host changes its tables all the time; after some tries a slightly torn picture must do.
        for attempt in 0..8 {
            let mut requests = Requests::new();
            build(&mut requests, F_DUMP);
            let name = requests.name(0);
            let first = self.send(&mut requests, |_| false)?;
            let mut state = S::default();
            let (mut done, mut torn, mut outcome) = (false, false, Ok(()));
            while !done {
                self.receive(|message| {
                    if message.sequence != first || message.kind == NOOP {
                        return Ok(());
                    }
                    torn |= message.flags & FLAG_INTERRUPTED != 0;
                    match message.kind {
                        DONE | ERROR => {
                            done = true;
                            if let Some(error) = refused(message, name) {
                                outcome = Err(error);
                            }
                        }
                        _ if outcome.is_ok() => outcome = each(&mut state, message),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            match outcome {
                Err(error) if !error.is(Errno::INTR) => return Err(error),
                Ok(()) if !torn || attempt == 7 => return Ok(state),
                _ => {}
            }
        }
        Err(NetlinkError::Overrun)
    }

    /// Sends an nf_tables batch (its first message opens, its last closes it) and waits for the verdict on the whole.
    ///
    /// # Errors
    /// The first refusal; then nothing of the batch took effect.
    pub(crate) fn batch(&mut self, requests: &mut Requests) -> Result<(), NetlinkError> {
        let last = requests.len().saturating_sub(2);
        let first = self.send(requests, |index| index == last)?;
        let mut refusal = None;
        let mut done = false;
        while !done {
            self.receive(|message| {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind == ERROR && index < requests.len() {
                    // The last change is acknowledged whatever happened; a refused commit is reported on the opening.
                    done |= index == last || index == 0;
                    if let Some(error) = refused(message, requests.name(index)) {
                        refusal.get_or_insert(error);
                    }
                }
                Ok(())
            })?;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Waits for events and hands each to `each`.
    ///
    /// # Errors
    /// [`NetlinkError::Overrun`] if events were lost: the caller reads the whole state again.
    pub fn events(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<(), NetlinkError> {
        self.receive(|message| {
            each(message);
            Ok(())
        })
    }

    /// Takes as many sequence numbers as there are requests, and returns the first.
    fn number(&mut self, requests: &Requests) -> u32 {
        let first = self.sequence;
        self.sequence = first.checked_add(requests.len() as u32).unwrap_or(1);
        first
    }

    fn send(&mut self, requests: &mut Requests, acknowledge: impl Fn(usize) -> bool) -> Result<u32, NetlinkError> {
        let first = self.number(requests);
        self.transmit(requests.seal(first, acknowledge))?;
        Ok(first)
    }

    fn transmit(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        if bytes.len() > 128 * 1024 {
            // Beyond SO_SNDBUF (208 KiB by default) the kernel refuses a message with EMSGSIZE.
            let size = bytes.len().saturating_mul(2);
            sockopt::set_socket_send_buffer_size_force(&self.fd, size).map_err(failed("setsockopt"))?;
        }
        loop {
            match rustix::net::send(&self.fd, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed("send")(e)),
            }
        }
    }

    /// Reads one datagram and hands out its messages.
    fn receive(&mut self, mut each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>) -> Result<(), NetlinkError> {
        // Dumps fill at most 32 KiB per datagram (netlink_dump); acknowledgements are short. On the stack, because
        // sockets are many and rarely used.
        let mut buffer = [0; 32 * 1024];
        let length = loop {
            match rustix::net::recvfrom(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => return Err(NetlinkError::Overrun),
                Err(e) => return Err(failed("receive")(e)),
                Ok((_, length, sender)) => {
                    let from = sender.and_then(|s| SocketAddrNetlink::try_from(s).ok());
                    // Port 0 is the kernel; anything else is another process, whose word means nothing.
                    if from.is_some_and(|f| f.pid() == 0) {
                        break length;
                    }
                }
            }
        };
        let datagram = buffer.get(..length).ok_or(NetlinkError::Overrun)?;
        messages(datagram).try_for_each(|message| each(&message?))
    }
}

/// Cuts messages into runs of at most `count`.
fn parts(bytes: &[u8], count: usize) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let run = messages(rest).take(count).map_while(Result::ok);
        let length: usize = run.map(|m| align(HEADER + m.payload.len())).sum();
        // What the encoder made always has a first message; anything else would not end.
        let (part, after) = rest.split_at(if length == 0 { rest.len() } else { length.min(rest.len()) });
        parts.push(part);
        rest = after;
    }
    parts
}

/// Reads the error of an acknowledgement or of the end of a dump; `None` if it is success.
fn refused(message: &Message<'_>, request: &'static str) -> Option<NetlinkError> {
    if message.payload.len() < 4 {
        return (message.kind == ERROR).then_some(NetlinkError::Malformed("short acknowledgement"));
    }
    let code = u32_at(message.payload, 0) as i32;
    if code == 0 {
        return None;
    }
    let text = (message.flags & FLAG_TLVS != 0).then(|| extended(message)).flatten();
    // Raw error numbers lie in 1..4096; anything else is no answer of this kernel.
    let number = code.checked_neg().filter(|n| (1..4096).contains(n));
    Some(match number {
        Some(n) => NetlinkError::Refused { request, message: text, source: Errno::from_raw_os_error(n) },
        None => NetlinkError::Malformed("error number"),
    })
}

/// The text of an extended acknowledgement, which follows the (possibly capped) copy of the request.
fn extended(message: &Message<'_>) -> Option<String> {
    let skip = if message.kind == DONE {
        4
    } else if message.flags & FLAG_CAPPED != 0 {
        4 + HEADER
    } else {
        4 + align((u32_at(message.payload, 4) as usize).max(HEADER).min(message.payload.len()))
    };
    let rest = message.payload.get(skip..)?;
    attributes(rest).find(|a| a.kind == EXT_ACK_MESSAGE).map(|a| a.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(flags: u16, payload: &[u8]) -> Option<NetlinkError> {
        refused(&Message { kind: ERROR, flags, sequence: 1, payload }, "add link")
    }

    #[test]
    fn an_acknowledgement_of_zero_is_success_and_a_negative_one_names_the_request() {
        assert_eq!(ack(0, &0i32.to_ne_bytes()), None);
        let error = ack(0, &(-17i32).to_ne_bytes()).unwrap();
        assert!(error.is(Errno::EXIST));
        assert_eq!(error.to_string(), "add link");
    }

    #[test]
    fn an_extended_acknowledgement_gives_the_kernels_text() {
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        payload.extend([11, 0, 1, 0]);
        payload.extend(b"no way\0\0");
        let error = ack(FLAG_CAPPED | FLAG_TLVS, &payload).unwrap();
        assert_eq!(error.to_string(), "add link (no way)");
    }

    #[test]
    fn hostile_acknowledgements_are_errors_not_panics() {
        assert_eq!(ack(0, &[1, 2]), Some(NetlinkError::Malformed("short acknowledgement")));
        for code in [i32::MIN, 1, i32::MAX, -5000] {
            assert_eq!(ack(0, &code.to_ne_bytes()), Some(NetlinkError::Malformed("error number")));
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_an_acknowledgement_never_panics(flags: u16, payload in proptest::collection::vec(0u8.., 0..80)) {
            let _ = ack(flags, &payload);
            let _ = refused(&Message { kind: DONE, flags, sequence: 1, payload: &payload }, "dump");
        }
    }
}
