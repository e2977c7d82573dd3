//! Answers: JSON, errors, empty ones and streams.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{Either, Full};
use serde::Serialize;
use wharf_api_types as api;
use wharf_error::Kind;

use crate::ApiError;
use crate::backend::Outgoing;
use crate::socket::Socket;

/// The body of an answer: whole, or made while it is sent.
pub type Payload = Either<Full<Bytes>, Streamed>;
/// An answer.
pub type Answer = Response<Payload>;

/// The status of an error's kind, as moby's `httpstatus.FromError` gives it.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Unauthorised => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Cancelled | Kind::Deadline | Kind::DataLoss | Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A value as JSON with a line feed, as Go's encoder ends it.
fn json_line(value: &impl Serialize) -> Vec<u8> {
    // The types hold only strings, numbers, lists and maps with string keys, which always serialise.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    body
}

/// A JSON answer.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    whole(status, "application/json", json_line(value))
}

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    whole(status, "text/plain; charset=utf-8", body)
}

/// An answer of headers only.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::new())));
    *answer.status_mut() = status;
    answer
}

/// An error's answer; 304 has no body.
pub fn error(e: &ApiError) -> Answer {
    match status(e.kind) {
        StatusCode::NOT_MODIFIED => empty(StatusCode::NOT_MODIFIED),
        status => json(status, &api::ErrorResponse { message: e.message.clone() }),
    }
}

/// A streamed answer: begins at once, goes on while the channel gives chunks.
pub fn stream(content_type: &'static str, body: Streamed) -> Answer {
    let mut answer = Response::new(Either::Right(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

type Encode = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<Bytes, ApiError>>> + Send>;

/// A body that is produced while it is sent. It ends when the producer ends, when the client leaves, or when the
/// server shuts down.
pub struct Streamed {
    next: Encode,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Streamed {
    /// Sends what a channel gives, after `first` if there is one, each item through `encode`. An error after the start ends the connection, so that
    /// the client sees the stream as cut.
    pub fn of<T: Send + 'static>(
        mut first: Option<Result<T, ApiError>>,
        mut items: Outgoing<T>,
        mut encode: impl FnMut(Result<T, ApiError>) -> Result<Bytes, ApiError> + Send + 'static,
        ends: Ends,
    ) -> Self {
        let next = move |cx: &mut Context<'_>| match first.take() {
            Some(item) => Poll::Ready(Some(encode(item))),
            None => items.poll_recv(cx).map(|item| item.map(&mut encode)),
        };
        Self { next: Box::new(next), gone: ends.wait() }
    }

    /// Sends one chunk when a future is done, after the headers.
    pub fn once(future: impl Future<Output = Bytes> + Send + 'static, ends: Ends) -> Self {
        let mut future = Some(Box::pin(future));
        let next = move |cx: &mut Context<'_>| match &mut future {
            None => Poll::Ready(None),
            Some(f) => f.as_mut().poll(cx).map(|bytes| {
                future = None;
                Some(Ok(bytes))
            }),
        };
        Self { next: Box::new(next), gone: ends.wait() }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        if let Poll::Ready(item) = (self.next)(cx) {
            return Poll::Ready(item.map(|r| r.map(Frame::data)));
        }
        self.gone.as_mut().poll(cx).map(|()| None)
    }
}

/// What ends a stream from outside: the client's departure or the server's shutdown.
#[derive(Clone)]
pub struct Ends {
    /// The connection.
    pub socket: Arc<Socket>,
    /// Turns true at shutdown.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

impl Ends {
    fn wait(mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            tokio::select! {
                () = self.socket.reader_gone() => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        })
    }
}

/// Newline-delimited JSON. An error ends the connection: a list of values has no place for it.
pub fn lines<T: Serialize + Send + 'static>(items: Outgoing<T>, ends: Ends) -> Streamed {
    Streamed::of(None, items, |item| item.map(|value| json_line(&value).into()), ends)
}

/// A progress stream. An error becomes its last line.
pub fn progress(
    first: Option<Result<api::Progress, ApiError>>,
    items: Outgoing<api::Progress>,
    ends: Ends,
) -> Streamed {
    let encode = |item: Result<api::Progress, ApiError>| {
        let line = item.unwrap_or_else(|e| api::Progress {
            error: e.message.clone(),
            error_detail: Some(api::ErrorDetail { code: 0, message: e.message }),
            ..api::Progress::default()
        });
        let mut bytes = json_line(&line);
        bytes.insert(bytes.len() - 1, b'\r');
        Ok(bytes.into())
    };
    Streamed::of(first, items, encode, ends)
}

/// Bytes as they come.
pub fn bytes(items: Outgoing<Bytes>, ends: Ends) -> Streamed {
    Streamed::of(None, items, |item| item, ends)
}
