//! Serving.

use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::outgoing;
use crate::{Code, Receiver, Sender, Status};

/// A call that came in.
pub struct Call {
    /// `/package.Service/Method`.
    pub path: String,
    /// The headers.
    pub metadata: HeaderMap,
    /// What comes.
    pub receiver: Receiver,
    /// What is answered.
    pub sender: Sender,
}

impl Call {
    /// The one message of a call.
    ///
    /// # Errors
    /// There is none.
    pub async fn message<M: Message + Default>(&mut self) -> Result<M, Status> {
        self.receiver.message().await?.ok_or_else(|| Status::new(Code::Internal, "the request has no message"))
    }
}

/// Something that answers calls.
pub trait Service: Send + Sync + 'static {
    /// Answers a call; the result becomes its trailers.
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;
}

/// Flow control windows, as in the client.
const WINDOW: u32 = 2 << 20;

/// Calls at a time on one connection (CVE-2023-44487 and its like: streams opened and reset).
const STREAMS: u32 = 256;

/// Serves a connection until it ends.
///
/// # Errors
/// The peer does not speak HTTP/2, or breaks off.
pub async fn serve<S>(stream: S, service: Arc<dyn Service>) -> Result<(), Status>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW * 2);
    builder.max_concurrent_streams(STREAMS).max_header_list_size(64 << 10);
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        async move {
            let (parts, body) = request.into_parts();
            let (sender, out) = outgoing();
            let call = Call {
                path: parts.uri.path().to_owned(),
                metadata: parts.headers,
                receiver: Receiver::new(body),
                sender: sender.clone(),
            };
            tokio::spawn(async move {
                let work = service.call(call);
                // Who leaves cancels its call.
                let result = tokio::select! {
                    result = work => result,
                    () = sender.closed() => return,
                };
                // A peer that left needs no trailers.
                let _ = sender.frame(Frame::trailers(Status::trailers(&result))).await;
            });
            let mut response = Response::new(out);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    builder.serve_connection(TokioIo::new(stream), answer).await.map_err(|e| Status::lost(&e))
}
