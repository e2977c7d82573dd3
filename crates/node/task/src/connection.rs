//! A ttRPC connection: calls side by side, each answered when the shim answers it.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, send, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use wharf_proto_task::{Frame, FrameKind, HEADER_LEN, Header, Message, Request, Response};

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended.
    Lost,
    /// The bytes are no answer.
    Protocol,
}

type Waiting = Mutex<Option<HashMap<u32, oneshot::Sender<Response>>>>;

#[derive(Debug)]
pub(crate) struct Connection {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Calls without answer; `None` once the connection has ended.
    waiting: Arc<Waiting>,
    next: AtomicU32,
}

/// Takes a call's place out of the table if its caller gives up.
struct Place<'a> {
    waiting: &'a Waiting,
    stream: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(map) = &mut *lock(self.waiting) {
            map.remove(&self.stream);
        }
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<HashMap<u32, oneshot::Sender<Response>>>> {
    // The table is whole after every statement, so a panic elsewhere spoils nothing.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Connection {
        let (reader, writer) = stream.into_split();
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let table = Arc::clone(&waiting);
        tokio::spawn(async move {
            // However it ends, callers learn it by their senders being dropped.
            let _ = receive(reader, &table).await;
            lock(&table).take();
        });
        Connection { writer: tokio::sync::Mutex::new(writer), waiting, next: AtomicU32::new(1) }
    }

    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.waiting).is_none()
    }

    /// Makes a call and waits for its answer.
    pub(crate) async fn call(&self, service: &str, method: &str, message: &impl Message) -> Result<Response, Broken> {
        let stream = self.next.fetch_add(2, Ordering::Relaxed);
        let frame = request_frame(stream, service, method, message)?;
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or(Broken::Lost)?.insert(stream, sender);
        let _place = Place { waiting: &self.waiting, stream };
        let mut writer = self.writer.lock().await;
        let sent = send_now(writer.as_ref(), &frame).map_err(|_| Broken::Lost)?;
        writer.write_all(&frame[sent..]).await.map_err(|_| Broken::Lost)?;
        drop(writer);
        receiver.await.map_err(|_| Broken::Lost)
    }
}

async fn receive(mut reader: OwnedReadHalf, table: &Waiting) -> std::io::Result<()> {
    loop {
        let Ok((stream, response)) = read_response(&mut reader).await? else {
            return Err(std::io::ErrorKind::InvalidData.into());
        };
        let sender = lock(table).as_mut().and_then(|map| map.remove(&stream));
        if let Some(sender) = sender {
            // A caller that gave up meanwhile needs no answer.
            let _ = sender.send(response);
        }
    }
}

/// Connects to a shim's socket.
///
/// A runtime's own connect waits until the runtime has seen the socket once, on another thread as a rule; on a busy host that
/// is a millisecond in which the shim has nothing to do. A Unix socket is connected when connect(2) returns.
///
/// # Errors
/// Those of connect(2), `WouldBlock` where the queue of who should accept is full.
pub(crate) fn connect(path: &str) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    UnixStream::from_std(socket.into())
}

/// Writes what the socket takes at once, for the same reason as [`connect`], and tells how many bytes that were.
pub(crate) fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

/// One call as one frame.
pub(crate) fn request_frame(
    stream: u32,
    service: &str,
    method: &str,
    message: &impl Message,
) -> Result<Vec<u8>, Broken> {
    let request = Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload: message.encode_to_vec(),
        ..Request::default()
    };
    let mut frame = Vec::with_capacity(request.encoded_len() + HEADER_LEN);
    Frame::put(&mut frame, stream, FrameKind::Request, &request).map_err(|_| Broken::Protocol)?;
    Ok(frame)
}

/// Reads exactly one response, not a byte more: what follows may be raw.
pub(crate) async fn read_response(
    reader: &mut (impl AsyncReadExt + Unpin),
) -> std::io::Result<Result<(u32, Response), Broken>> {
    let mut head = [0; HEADER_LEN];
    reader.read_exact(&mut head).await?;
    let Ok(header) = Header::decode(&head) else { return Ok(Err(Broken::Protocol)) };
    let mut payload = vec![0; header.len as usize];
    reader.read_exact(&mut payload).await?;
    Ok(match Response::decode(payload.as_slice()) {
        Ok(response) if header.kind == FrameKind::Response => Ok((header.stream, response)),
        _ => Err(Broken::Protocol),
    })
}
