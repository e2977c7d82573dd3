//! A build by BuildKit's protocol: a session that we serve, a call that builds, and one that tells how far it is.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wharf_api_client::{Hijacked, Request};
use wharf_grpc::{Channel, Receiver, Status};
use wharf_proto_buildkit::control::{CacheOptions, SolveRequest, SolveResponse, StatusRequest, StatusResponse};

use super::plan::Plan;
use super::session::{Door, METHODS};
use super::show::{FRAME, Show};
use crate::exit::Exit;
use crate::shell::Shell;

/// How long the end of the progress is waited for once the build is over.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of a build.
pub struct Done {
    /// `containerimage.digest` and the like.
    pub facts: BTreeMap<String, String>,
    /// The reference of the build.
    pub reference: String,
}

/// A connection that was taken over from HTTP, with what was read ahead.
struct Taken {
    ahead: Vec<u8>,
    at: usize,
    stream: tokio::net::UnixStream,
}

impl Taken {
    /// Must be called within a runtime.
    fn of(hijacked: Hijacked) -> io::Result<Self> {
        let (socket, ahead) = hijacked.connection.into_parts();
        // read(2), write(2) and shutdown(2) do not ask what kind of socket it is.
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Self { ahead, at: 0, stream: tokio::net::UnixStream::from_std(stream)? })
    }
}

impl AsyncRead for Taken {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.at < self.ahead.len() {
            let n = buf.remaining().min(self.ahead.len() - self.at);
            buf.put_slice(&self.ahead[self.at..self.at + n]);
            self.at += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A random name.
pub fn name() -> String {
    let mut bytes = [0u8; 25];
    // getrandom(2) does not fail once the pool is ready.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(b % 32)])).collect()
}

/// What tells folders of different machines and places apart, so that a daemon finds what it has of this one.
fn shared_key(plan: &Plan) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let folder = plan.folders.get("context").map(|p| p.canonicalize().unwrap_or_else(|_| p.clone()));
    let text = format!("{host}:{}", folder.as_deref().unwrap_or(Path::new("")).display());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}

/// Builds.
///
/// # Errors
/// The build's own failure, with the place in the Dockerfile; those of connecting.
pub fn run(shell: &Shell, plan: &Plan, show: &mut Show) -> Result<Done, Exit> {
    let client = shell.client()?;
    let mut session = Request::post("/session").protocol("h2c");
    let id = name();
    session = session
        .header("X-Docker-Expose-Session-Uuid", id.clone())
        .header("X-Docker-Expose-Session-Name", "docker")
        .header("X-Docker-Expose-Session-Sharedkey", shared_key(plan));
    for method in METHODS {
        session = session.header("X-Docker-Expose-Session-Grpc-Method", *method);
    }
    let session = client.hijack(session)?;
    let grpc = client.hijack(Request::post("/grpc").protocol("h2c"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Exit::new(e.to_string()))?;
    let door = Door::new(plan, shell.folder().to_owned());
    let result = runtime.block_on(async {
        let lost = |e: io::Error| Exit::new(e.to_string());
        let (session, grpc) = (Taken::of(session).map_err(lost)?, Taken::of(grpc).map_err(lost)?);
        let serving = tokio::spawn(wharf_grpc::serve(session, Arc::new(door)));
        let channel = Channel::open(grpc).await.map_err(|e| Exit::new(e.message))?;
        let reference = name();
        let done = drive(&channel, &request(plan, &id, &reference), show).await;
        serving.abort();
        match done {
            Ok(facts) => {
                show.end(None);
                Ok(Done { facts, reference })
            }
            Err(status) => Err(explain(&status, show)),
        }
    });
    // A file that is still being read must not hold the command.
    runtime.shutdown_background();
    result
}

fn request(plan: &Plan, session: &str, reference: &str) -> SolveRequest {
    let mut attrs = plan.attrs.clone();
    if !plan.imports.is_empty() {
        let list: Vec<_> =
            plan.imports.iter().map(|i| serde_json::json!({"Type": i.r#type, "Attrs": i.attrs})).collect();
        attrs.insert("cache-imports".to_owned(), serde_json::Value::Array(list).to_string());
    }
    SolveRequest {
        r#ref: reference.to_owned(),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attrs,
        exporters: plan.exporters.clone(),
        // Daemons from before several results read these.
        exporter_deprecated: plan.exporters.first().map(|e| e.r#type.clone()).unwrap_or_default(),
        exporter_attrs_deprecated: plan.exporters.first().map(|e| e.attrs.clone()).unwrap_or_default(),
        cache: Some(CacheOptions {
            exports: plan.exports.clone(),
            imports: plan.imports.clone(),
            ..CacheOptions::default()
        }),
        entitlements: plan.entitlements.clone(),
        enable_session_exporter: true,
        ..SolveRequest::default()
    }
}

/// Builds, and shows the progress meanwhile.
async fn drive(channel: &Channel, request: &SolveRequest, show: &mut Show) -> Result<BTreeMap<String, String>, Status> {
    let solve = channel.unary::<SolveResponse>("/moby.buildkit.v1.Control/Solve", request);
    tokio::pin!(solve);
    let status = StatusRequest { r#ref: request.r#ref.clone() };
    let (events, mut progress) = tokio::sync::mpsc::channel::<StatusResponse>(64);
    let following = channel.clone();
    let follow = tokio::spawn(async move {
        let mut stream: Receiver = following.streaming("/moby.buildkit.v1.Control/Status", &status).await?;
        while let Some(event) = stream.message().await? {
            if events.send(event).await.is_err() {
                break;
            }
        }
        Ok::<_, Status>(())
    });
    let mut solved = None;
    let mut tick = tokio::time::interval(FRAME);
    let mut deadline = None;
    loop {
        let over = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = &mut solve, if solved.is_none() => {
                deadline = Some(tokio::time::Instant::now() + PATIENCE);
                solved = Some(done);
            }
            event = progress.recv() => match event {
                Some(event) => show.take(&event),
                None => break,
            },
            _ = tick.tick() => show.tick(),
            () = over => break,
        }
    }
    follow.abort();
    let done = match solved {
        Some(done) => done,
        None => solve.await,
    };
    done.map(|answer| answer.exporter_response)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Vertex {
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    info: Info,
    ranges: Vec<Range>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    filename: String,
    data: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Position {
    line: usize,
}

/// Shows what failed: its output, and the place in the Dockerfile.
fn explain(status: &Status, show: &mut Show) -> Exit {
    let detail = |kind: &str| status.details.iter().find(|d| d.type_url.ends_with(kind)).map(|d| d.value.as_slice());
    let vertex = detail("errdefs.Vertex+json").and_then(|v| serde_json::from_slice::<Vertex>(v).ok());
    show.end(vertex.as_ref().map(|v| v.digest.as_str()));
    let source = detail("errdefs.Source+json").and_then(|v| serde_json::from_slice::<Source>(v).ok());
    let mut text = String::new();
    if let Some(source) = source
        && let Some(range) = source.ranges.first()
        && let Ok(data) = base64::engine::general_purpose::STANDARD.decode(&source.info.data)
    {
        let last = source.ranges.iter().map(|r| r.end.line.max(r.start.line)).max().unwrap_or(0);
        text = wharf_dockerfile::excerpt(&source.info.filename, &data, range.start.line, last);
    }
    Exit::new(format!("{text}ERROR: failed to build: failed to solve: {}", status.message))
}
