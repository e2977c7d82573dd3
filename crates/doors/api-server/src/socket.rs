//! One client's connection, shared between hyper, the request at work and the hijack that may follow.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// The header that marks the head hyper writes for a hijacked request. It never leaves the process: [`Gate`] holds the
/// head back, and the hijack writes its own.
pub const HIJACK_MARK: &str = "x-wharf-hijack";

/// A connected stream socket. All its methods take `&self`, so that the request at work can watch for the client's
/// departure while hyper owns the reading.
#[derive(Debug)]
pub enum Socket {
    /// A unix socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
}

macro_rules! each {
    ($self:ident, $s:ident => $body:expr) => {
        match $self {
            Socket::Unix($s) => $body,
            Socket::Tcp($s) => $body,
        }
    };
}

impl Socket {
    /// Reads what is there; `WouldBlock` if nothing is.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        each!(self, s => s.try_read(buf))
    }

    /// Writes what fits; `WouldBlock` if nothing does.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        each!(self, s => s.try_write(buf))
    }

    /// Waits until [`Self::try_read`] may succeed.
    pub async fn readable(&self) -> io::Result<()> {
        each!(self, s => s.readable().await)
    }

    /// Waits until [`Self::try_write`] may succeed.
    pub async fn writable(&self) -> io::Result<()> {
        each!(self, s => s.writable().await)
    }

    /// Writes all of it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends end-of-file, or both directions' end. A peer that left already is no error.
    pub fn shutdown(&self, how: rustix::net::Shutdown) {
        let result = each!(self, s => rustix::net::shutdown(s, how));
        if let Err(e) = result {
            tracing::trace!(error = %e, "shutdown of a connection that is gone");
        }
    }

    /// Waits until the client has closed its sending side. A request that is not hijacked ends then, as in Go's
    /// server. Never ends while bytes of a further request wait to be read: such a client is still there.
    pub async fn reader_gone(&self) {
        loop {
            let ready = each!(self, s => s.ready(Interest::READABLE).await);
            match ready {
                Ok(r) if !r.is_read_closed() && r.is_readable() => match self.peek_eof() {
                    Some(true) => return,
                    Some(false) => std::future::pending().await,
                    None => {}
                },
                Ok(r) if !r.is_read_closed() => {}
                _ => return,
            }
        }
    }

    /// Whether end-of-file is next; `None` if nothing is there. Clears a stale readiness.
    fn peek_eof(&self) -> Option<bool> {
        let mut byte = [0u8; 1];
        let mut peek = |fd: rustix::fd::BorrowedFd<'_>| {
            rustix::net::recv(fd, &mut byte[..], rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT)
                .map(|(n, _)| n)
                .map_err(io::Error::from)
        };
        use std::os::fd::AsFd;
        let got = match self {
            Self::Unix(s) => s.try_io(Interest::READABLE, || peek(s.as_fd())),
            Self::Tcp(s) => s.try_io(Interest::READABLE, || peek(s.as_fd())),
        };
        match got {
            Ok(n) => Some(n == 0),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(true),
        }
    }

    /// Waits until the client is gone altogether: nothing written can arrive any more.
    ///
    /// epoll reports a hang-up to those who wait for reading or writing only, and both may be ready all the time
    /// (a client that half-closed, an empty send buffer). So this looks once a second; it matters only for
    /// connections over which nothing is sent.
    pub async fn writer_gone(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            tick.tick().await;
            let gone = each!(self, s => {
                let mut fds = [PollFd::new(s, PollFlags::empty())];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut fds, Some(&now)).is_err() || fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
            });
            if gone {
                return;
            }
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => s.poll_read_ready(cx))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => s.poll_write_ready(cx))
    }
}

/// Holds back the response head of a hijacked request.
#[derive(Debug, Default)]
pub struct Gate {
    held: Mutex<Option<Vec<u8>>>,
}

impl Gate {
    /// From now on what hyper writes is kept, not sent.
    pub fn close(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    /// What was kept of responses before the marked one (from pipelined requests whose bytes had not left yet).
    pub fn take_earlier(&self) -> Vec<u8> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        let mark = find(&held, HIJACK_MARK.as_bytes()).unwrap_or(held.len());
        let head = rfind(&held[..mark], b"HTTP/1.1 101").unwrap_or(mark);
        held.truncate(head);
        held
    }

    fn keep(&self, bytes: &[u8]) -> bool {
        match &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(held) => {
                held.extend_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // Header names may be written in title case.
    haystack.windows(needle.len()).position(|w| w.eq_ignore_ascii_case(needle))
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|w| w == needle)
}

/// The connection as hyper sees it.
#[derive(Debug)]
pub struct HyperIo {
    socket: Arc<Socket>,
    gate: Arc<Gate>,
    /// Whether the first line of the connection is still coming in.
    first_line: bool,
}

impl HyperIo {
    /// Wraps a connection.
    pub fn new(socket: Arc<Socket>, gate: Arc<Gate>) -> Self {
        Self { socket, gate, first_line: true }
    }
}

/// A first line is read into the thread's buffer and escaped on its way from there.
const READ_AT_ONCE: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AT_ONCE].into_boxed_slice());
}

fn end_of_line(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// Passes a byte of the request line on. Go's server takes characters that URLs must escape, and people type them
/// (`curl -g '…/events?filters={"type":["container"]}'`); hyper refuses them, so they are escaped here. Only the
/// first line of a connection is: client libraries, which keep connections, escape by themselves.
fn put_escaped(byte: u8, buf: &mut ReadBufCursor<'_>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let odd = matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..);
    if odd && buf.remaining() >= 3 {
        buf.put_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    } else {
        buf.put_slice(&[byte]);
    }
}

impl Read for HyperIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first_line {
            return Pin::new(&mut TokioIo::new(Direct(&this.socket))).poll_read(cx, buf);
        }
        // Escaping makes three bytes of one.
        let limit = (buf.remaining() / 3).clamp(1, READ_AT_ONCE);
        loop {
            ready!(this.socket.poll_read_ready(cx))?;
            let read: io::Result<()> = BUFFER.with_borrow_mut(|space| {
                let n = this.socket.try_read(&mut space[..limit])?;
                let (line, rest) = space[..n].split_at(end_of_line(&space[..n]));
                this.first_line = rest.is_empty() && !line.ends_with(b"\n");
                for byte in line {
                    put_escaped(*byte, &mut buf);
                }
                buf.put_slice(rest);
                Ok(())
            });
            match read {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

/// Reads into the memory that hyper has for it; `TokioIo` is what turns that into the buffer which tokio fills.
struct Direct<'a>(&'a Socket);

impl tokio::io::AsyncRead for Direct<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut tokio::io::ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let socket = self.0;
            match each!(socket, s => s.try_read_buf(buf)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl Write for HyperIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.gate.keep(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().any(|b| !b.is_empty() && self.gate.keep(b)) {
            // The first non-empty slice was kept; keep the rest too.
            let mut slices = bufs.iter().filter(|b| !b.is_empty());
            let first = slices.next().map_or(0, |b| b.len());
            return Poll::Ready(Ok(first + slices.map(|b| (self.gate.keep(b), b.len()).1).sum::<usize>()));
        }
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let written = match &*self.socket {
                Socket::Unix(s) => s.try_write_vectored(bufs),
                Socket::Tcp(s) => s.try_write_vectored(bufs),
            };
            match written {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shutdown(rustix::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
