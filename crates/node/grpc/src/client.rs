//! Calling.

use http::{HeaderMap, HeaderValue, Request};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::body::{Outgoing, outgoing};
use crate::{Code, Receiver, Sender, Status};

/// Flow control windows: large enough for files, small enough that a stream that is not read costs little.
const WINDOW: u32 = 2 << 20;

/// One connection to a peer that serves.
#[derive(Clone)]
pub struct Channel {
    sender: http2::SendRequest<Outgoing>,
    gone: watch::Receiver<bool>,
}

/// A call in progress.
pub struct Exchange {
    /// What is sent.
    pub sender: Sender,
    /// What comes.
    pub receiver: Receiver,
}

impl Channel {
    /// Takes a connection. Must be called within a tokio runtime, on which the connection is driven.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2.
    pub async fn open<S>(stream: S) -> Result<Self, Status>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW * 2).max_frame_size(256 << 10);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| Status::lost(&e))?;
        let (tell, gone) = watch::channel(false);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a gRPC connection ended");
            }
            let _ = tell.send(true);
        });
        Ok(Self { sender, gone })
    }

    /// Ends when the connection has ended.
    pub async fn closed(&self) {
        // An error means that the sender is gone, which is the same.
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        *self.gone.borrow()
    }

    /// Starts a call: `path` is `/package.Service/Method`.
    ///
    /// # Errors
    /// The connection broke, or the peer refused at once.
    pub async fn call(&self, path: &str, metadata: HeaderMap) -> Result<Exchange, Status> {
        let (sender, body) = outgoing();
        let request = request(path, metadata, body)?;
        let mut client = self.sender.clone();
        client.ready().await.map_err(|e| Status::lost(&e))?;
        let response = client.send_request(request).await.map_err(|e| Status::lost(&e))?;
        if let Some(Err(status)) = Status::read(response.headers()) {
            return Err(status);
        }
        if response.status() != http::StatusCode::OK {
            return Err(Status::lost(&format!("HTTP status {}", response.status())));
        }
        Ok(Exchange { sender, receiver: Receiver::new(response.into_body()) })
    }

    /// A call of one message each way.
    ///
    /// # Errors
    /// As [`Channel::call`], and the peer's own.
    pub async fn unary<M: Message + Default>(&self, path: &str, message: &impl Message) -> Result<M, Status> {
        let mut stream = self.streaming(path, message).await?;
        let answer = stream.message().await?.ok_or_else(|| Status::lost(&"no answer"))?;
        // Trailers may still say that it failed.
        while stream.bytes().await?.is_some() {}
        Ok(answer)
    }

    /// A call of one message out and many in.
    ///
    /// # Errors
    /// As [`Channel::call`].
    pub async fn streaming(&self, path: &str, message: &impl Message) -> Result<Receiver, Status> {
        // Servers may answer with headers only after they have read the message, so it is sent meanwhile.
        let (sender, body) = outgoing();
        sender.send(message).await?;
        drop(sender);
        let request = request(path, HeaderMap::new(), body)?;
        let mut client = self.sender.clone();
        client.ready().await.map_err(|e| Status::lost(&e))?;
        let response = client.send_request(request).await.map_err(|e| Status::lost(&e))?;
        if let Some(Err(status)) = Status::read(response.headers()) {
            return Err(status);
        }
        Ok(Receiver::new(response.into_body()))
    }

    /// A call of many messages both ways whose peer may send its headers late: the sender can be used at once.
    ///
    /// # Errors
    /// As [`Channel::call`].
    pub async fn open_call(
        &self,
        path: &str,
        metadata: HeaderMap,
    ) -> Result<(Sender, impl Future<Output = Result<Receiver, Status>> + Send + 'static), Status> {
        let (sender, body) = outgoing();
        let request = request(path, metadata, body)?;
        let mut client = self.sender.clone();
        client.ready().await.map_err(|e| Status::lost(&e))?;
        let answer = client.send_request(request);
        Ok((sender, async move {
            let response = answer.await.map_err(|e| Status::lost(&e))?;
            if let Some(Err(status)) = Status::read(response.headers()) {
                return Err(status);
            }
            Ok(Receiver::new(response.into_body()))
        }))
    }
}

fn request(path: &str, metadata: HeaderMap, body: Outgoing) -> Result<Request<Outgoing>, Status> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    let uri = format!("http://localhost{path}");
    *request.uri_mut() = uri.parse().map_err(|e| Status::new(Code::InvalidArgument, format!("{path}: {e}")))?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = metadata;
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    Ok(request)
}
