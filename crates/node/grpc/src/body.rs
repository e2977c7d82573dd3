//! Bodies of HTTP/2 messages: frames through a channel out, length-prefixed messages in.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::mpsc;

use crate::{MESSAGE_LIMIT, Status};

/// Messages on their way out that wait for the connection.
const WAITING: usize = 16;

/// A body that is produced while it is sent.
pub(crate) struct Outgoing(mpsc::Receiver<Frame<Bytes>>);

pub(crate) fn outgoing() -> (Sender, Outgoing) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Sender { sender: Some(sender) }, Outgoing(receiver))
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// Sends messages; dropping it ends them.
#[derive(Clone)]
pub struct Sender {
    sender: Option<mpsc::Sender<Frame<Bytes>>>,
}

impl Sender {
    /// Sends a message; waits while the peer does not read.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn send(&self, message: &impl Message) -> Result<(), Status> {
        let size = message.encoded_len();
        let mut frame = BytesMut::with_capacity(size + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(size).map_err(|_| Status::lost(&"message too large"))?);
        message.encode(&mut frame).map_err(|e| Status::lost(&e))?;
        self.frame(Frame::data(frame.freeze())).await
    }

    pub(crate) async fn frame(&self, frame: Frame<Bytes>) -> Result<(), Status> {
        let sender = self.sender.as_ref().ok_or_else(|| Status::lost(&"closed"))?;
        sender.send(frame).await.map_err(|_| Status::lost(&"the peer left"))
    }

    /// Ends when the peer reads no more.
    pub async fn closed(&self) {
        if let Some(sender) = &self.sender {
            sender.closed().await;
        }
    }
}

/// Receives messages.
pub struct Receiver {
    body: Option<Incoming>,
    buffer: BytesMut,
    trailers: Option<Result<(), Status>>,
}

impl Receiver {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body: Some(body), buffer: BytesMut::new(), trailers: None }
    }

    /// The next message as it came; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, a message is too large, or the trailers say that the call failed.
    pub async fn bytes(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if self.buffer.len() >= 5 {
                let size =
                    u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]) as usize;
                if self.buffer[0] != 0 || size > MESSAGE_LIMIT {
                    return Err(Status::lost(&"a message that is compressed or too large"));
                }
                if self.buffer.len() >= size + 5 {
                    self.buffer.advance(5);
                    return Ok(Some(self.buffer.split_to(size).freeze()));
                }
            }
            let Some(body) = self.body.as_mut() else { return self.end() };
            match body.frame().await {
                None => {
                    self.body = None;
                    return self.end();
                }
                Some(Err(e)) => {
                    self.body = None;
                    return Err(Status::lost(&e));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        self.trailers = frame.trailers_ref().and_then(Status::read);
                    }
                },
            }
        }
    }

    fn end(&mut self) -> Result<Option<Bytes>, Status> {
        match self.trailers.take() {
            Some(Err(status)) => Err(status),
            _ if !self.buffer.is_empty() => Err(Status::lost(&"a message was cut off")),
            _ => Ok(None),
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// As [`Receiver::bytes`], or what came is not such a message.
    pub async fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        match self.bytes().await? {
            None => Ok(None),
            Some(bytes) => M::decode(bytes).map(Some).map_err(|e| Status::lost(&e)),
        }
    }
}
