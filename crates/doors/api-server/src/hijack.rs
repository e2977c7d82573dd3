//! Connections that become the standard streams of a process: taking over, copying both ways, detaching by keys.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use tokio::net::UnixStream;
use wharf_error::Kind;

use crate::backend::{Reply, Stdio};
use crate::detach::{DetachKeys, Scan};
use crate::socket::Socket;
use crate::{ApiError, websocket};

/// What is left to do with a connection after hyper has let go of it.
pub struct Takeover {
    /// The head to answer with, whole, blank line included.
    pub head: Vec<u8>,
    /// What follows the head.
    pub after: After,
}

/// What becomes of a connection once its head is sent.
pub enum After {
    /// Its end: the head was the answer.
    Nothing,
    /// The process' streams, byte for byte, until the keys are typed.
    Raw(Stdio, DetachKeys),
    /// The process' streams in websocket frames.
    Websocket(Stdio),
}

impl Takeover {
    /// Answers the client, then copies until one side is done. `early` are bytes that came with the request's head.
    pub async fn run(self, socket: Arc<Socket>, earlier: Vec<u8>, early: &[u8]) {
        let mut head = earlier;
        head.extend_from_slice(&self.head);
        let after = if socket.write_all(&head).await.is_ok() { self.after } else { After::Nothing };
        match after {
            After::Nothing => {}
            After::Raw(stdio, keys) => raw(&socket, stdio, keys, early).await,
            After::Websocket(stdio) => {
                if let Some(Ok(process)) = connect(&socket, stdio.stream).await {
                    websocket::copy(&socket, &process, !stdio.tty, stdio.stdin, early).await;
                }
            }
        }
        // Ends reads of the peer even where other handles to the connection still live for a moment.
        socket.shutdown(rustix::net::Shutdown::Both);
    }
}

/// Waits for the process' streams; `None` if the client leaves first.
async fn connect(socket: &Socket, stream: Reply<'static, UnixStream>) -> Option<Result<UnixStream, ApiError>> {
    tokio::select! {
        stream = stream => Some(stream),
        () = socket.writer_gone() => None,
    }
}

async fn raw(socket: &Socket, stdio: Stdio, keys: DetachKeys, early: &[u8]) {
    let (tty, stdin) = (stdio.tty, stdio.stdin);
    match connect(socket, stdio.stream).await {
        None => {}
        Some(Ok(process)) => {
            let keys = if tty && stdin { keys } else { DetachKeys::default() };
            match copy(socket, &process, stdin, keys, early).await {
                Ending::Finished => stdio.ended.await,
                Ending::Detached => (stdio.on_detach)(),
                Ending::Left => {}
            }
        }
        Some(Err(e)) => tell(socket, tty, &e).await,
    }
}

/// Shows an error in the stream, as moby does for an exec that cannot start.
async fn tell(socket: &Socket, tty: bool, error: &ApiError) {
    let text = format!("{}\r\n", error.message);
    let mut bytes = Vec::with_capacity(text.len() + 8);
    if !tty {
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    if let Err(e) = socket.write_all(&bytes).await {
        tracing::debug!(error = %e, kind = ?error.kind, "client left before the error reached it");
    }
}

/// How copying ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The process' output is complete.
    Finished,
    /// The client is gone.
    Left,
    /// The client typed the detach keys.
    Detached,
}

/// Bytes moved per read. The buffer is one per thread and in use only between a read and the write after it, so that
/// idle connections cost no buffer; what a slow reader leaves unwritten is the only copy that waits.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// One end of a copy.
trait End {
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn try_write(&self, buf: &[u8]) -> io::Result<usize>;
    async fn readable(&self) -> io::Result<()>;
    async fn writable(&self) -> io::Result<()>;
}

macro_rules! end {
    ($t:ty) => {
        impl End for $t {
            fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
                <$t>::try_read(self, buf)
            }
            fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
                <$t>::try_write(self, buf)
            }
            async fn readable(&self) -> io::Result<()> {
                <$t>::readable(self).await
            }
            async fn writable(&self) -> io::Result<()> {
                <$t>::writable(self).await
            }
        }
    };
}
end!(Socket);
end!(UnixStream);

async fn copy(client: &Socket, process: &UnixStream, stdin: bool, keys: DetachKeys, early: &[u8]) -> Ending {
    let output = async {
        match pump(process, client).await {
            Ok(()) => Ending::Finished,
            // Reading from the shim fails only when it is gone, writing when the client is.
            Err(_) => Ending::Left,
        }
    };
    let input = async {
        let ending = feed(client, process, stdin, keys, early).await;
        if ending == Ending::Detached {
            return ending;
        }
        // Half-close is the end of stdin; the output goes on.
        if let Err(e) = rustix::net::shutdown(process, rustix::net::Shutdown::Write) {
            tracing::trace!(error = %e, "the shim has closed its end");
        }
        client.writer_gone().await;
        Ending::Left
    };
    tokio::select! { biased; e = output => e, e = input => e }
}

/// Reads once into the thread's buffer and writes what fits; the rest is returned. `None` is end-of-file.
fn step(from: &impl End, to: &impl End) -> io::Result<Option<Vec<u8>>> {
    BUFFER.with_borrow_mut(|buffer| {
        let n = from.try_read(buffer)?;
        if n == 0 {
            return Ok(None);
        }
        let mut written = 0;
        while written < n {
            match to.try_write(&buffer[written..n]) {
                Ok(m) => written += m,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(Some(buffer[written..n].to_vec()))
    })
}

async fn write_all(to: &impl End, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Copies until end-of-file.
async fn pump(from: &impl End, to: &impl End) -> io::Result<()> {
    loop {
        match step(from, to) {
            Ok(None) => return Ok(()),
            Ok(Some(rest)) => write_all(to, &rest).await?,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => from.readable().await?,
            Err(e) => return Err(e),
        }
    }
}

/// Copies the client's bytes to the process until end-of-file or detach keys. A process that no longer reads ends
/// only the input: its output may still come.
async fn feed(client: &Socket, process: &UnixStream, stdin: bool, mut keys: DetachKeys, early: &[u8]) -> Ending {
    let mut open = stdin;
    if let Scan::Detached = forward(process, &mut open, &mut keys, early).await {
        return Ending::Detached;
    }
    if keys.is_empty() && open {
        return match pump(client, process).await {
            Ok(()) => Ending::Finished,
            Err(_) => drain(client).await,
        };
    }
    loop {
        let chunk = BUFFER.with_borrow_mut(|b| client.try_read(&mut b[..4096]).map(|n| b[..n].to_vec()));
        match chunk {
            Ok(bytes) if bytes.is_empty() => return Ending::Finished,
            Ok(bytes) => {
                if let Scan::Detached = forward(process, &mut open, &mut keys, &bytes).await {
                    return Ending::Detached;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if client.readable().await.is_err() {
                    return Ending::Left;
                }
            }
            Err(_) => return Ending::Left,
        }
    }
}

/// Passes bytes through the detach keys to the process, which `open` says still reads.
async fn forward(process: &UnixStream, open: &mut bool, keys: &mut DetachKeys, bytes: &[u8]) -> Scan {
    let (passed, outcome) = keys.scan(bytes);
    if *open && write_all(process, &passed).await.is_err() {
        *open = false;
    }
    outcome
}

/// Reads and drops what the client still sends.
async fn drain(client: &Socket) -> Ending {
    loop {
        match BUFFER.with_borrow_mut(|b| client.try_read(b)) {
            Ok(0) => return Ending::Finished,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if client.readable().await.is_err() {
                    return Ending::Left;
                }
            }
            Err(_) => return Ending::Left,
        }
    }
}

/// The head that hands a connection over to HTTP/2.
pub fn upgraded_head() -> Vec<u8> {
    b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_vec()
}

/// The head of a successful hijack.
pub fn success_head(upgrade: bool, multiplexed: bool, further: &[(String, String)]) -> Vec<u8> {
    use std::fmt::Write;
    let mut head = String::with_capacity(256);
    if upgrade {
        let kind = if multiplexed { "multiplexed" } else { "raw" };
        // Writing to a String cannot fail.
        let _ = write!(
            head,
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        );
    } else {
        head.push_str("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n");
    }
    for (name, value) in further {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The whole answer of an attach that failed: not JSON, because moby has hijacked the connection by then.
pub fn failure(error: &ApiError, multiplexed: bool) -> Vec<u8> {
    let status = crate::respond::status(error.kind);
    let kind = if multiplexed { "multiplexed" } else { "raw" };
    let reason = status.canonical_reason().unwrap_or_default();
    let message = if error.kind == Kind::NotModified { "" } else { &error.message };
    format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/vnd.docker.{kind}-stream\r\nConnection: close\r\n\r\n{message}\r\n",
        status.as_u16()
    )
    .into_bytes()
}
