//! Containers: the calls whose answer is a stream or takes the connection over.

use base64::Engine;
use http::{HeaderValue, StatusCode};
use wharf_api_types as api;
use wharf_api_types::query;

use crate::backend::ArchivePut;
use crate::call::{Call, Handled};
use crate::detach::DetachKeys;
use crate::hijack::{After, Takeover};
use crate::respond::{self, Answer, Streamed};
use crate::routes::Endpoint;
use crate::{ApiError, websocket};

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
const TAR: &str = "application/x-tar";

/// Carries out a streaming request.
pub async fn handle(call: Call) -> Handled {
    match call.endpoint {
        Endpoint::ContainerAttach => Ok(match attach(&call).await {
            Ok(answer) => answer,
            Err(e) => call.hijack_failure(&e),
        }),
        Endpoint::ContainerAttachWebsocket => attach_websocket(&call).await,
        Endpoint::ContainerLogs => logs(call).await,
        Endpoint::ContainerStats => stats(call).await,
        Endpoint::ContainerWait => wait(call).await,
        Endpoint::ContainerExport => {
            let body = call.backends.containers.export(&call.name).await?;
            Ok(respond::stream(TAR, respond::bytes(body, call.ends())))
        }
        _ => archive(call).await,
    }
}

fn attach_query(call: &Call) -> query::Attach {
    let q = &call.query;
    query::Attach {
        logs: q.flag("logs"),
        stream: q.flag("stream"),
        stdin: q.flag("stdin"),
        stdout: q.flag("stdout"),
        stderr: q.flag("stderr"),
        detach_keys: q.text("detachKeys").to_owned(),
    }
}

/// Parses detach keys as attach does, with its message.
fn detach_keys(text: &str) -> Result<DetachKeys, ApiError> {
    DetachKeys::or_default(text).map_err(|_| ApiError::invalid(format!("Invalid detach keys ({text}) provided")))
}

async fn attach(call: &Call) -> Handled {
    let wanted = attach_query(call);
    detach_keys(&wanted.detach_keys)?;
    let stdio = call.backends.containers.attach(&call.name, wanted).await?;
    let keys = detach_keys(&stdio.detach_keys)?;
    Ok(call.hijack(stdio, keys, &[]))
}

async fn attach_websocket(call: &Call) -> Handled {
    let wanted = attach_query(call);
    detach_keys(&wanted.detach_keys)?;
    let stdio = call.backends.containers.attach(&call.name, wanted).await?;
    let Some(head) = websocket::accept_head(&call.headers) else {
        return Ok(websocket::refusal());
    };
    Ok(call.take_over(Takeover { head, after: After::Websocket(stdio) }))
}

async fn logs(call: Call) -> Handled {
    let q = &call.query;
    let (stdout, stderr) = (q.flag("stdout"), q.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let wanted = query::Logs {
        follow: q.flag("follow"),
        stdout,
        stderr,
        since: q.time("since")?.filter(|t| *t != 0),
        until: q.time("until")?.filter(|t| *t != 0),
        timestamps: q.flag("timestamps"),
        details: q.flag("details"),
        // Anything that is no count means all, `all` among it.
        tail: q.text("tail").parse().ok(),
    };
    let log = call.backends.containers.logs(&call.name, wanted).await?;
    let kind = if log.tty || call.version.before(42) { RAW } else { MULTIPLEXED };
    Ok(respond::stream(kind, respond::bytes(log.body, call.ends())))
}

async fn stats(call: Call) -> Handled {
    let stream = call.query.flag_or("stream", true);
    let one_shot = !call.version.before(41) && call.query.flag("one-shot");
    if stream && one_shot {
        return Err(ApiError::invalid("cannot have stream=true and one-shot=true"));
    }
    let samples = call.backends.containers.stats(&call.name, query::Stats { stream, one_shot }).await?;
    Ok(respond::stream("application/json", respond::lines(samples, call.ends())))
}

async fn wait(call: Call) -> Handled {
    let condition = match call.query.text("condition") {
        "" | "not-running" => query::WaitCondition::NotRunning,
        "next-exit" => query::WaitCondition::NextExit,
        "removed" => query::WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiting = call.backends.containers.wait(&call.name, condition).await?;
    // The headers go out now: clients start the container only after they have seen them.
    let outcome = async move {
        let outcome = waiting.await.unwrap_or_else(|e| api::ContainerWaitResponse {
            status_code: 0,
            error: Some(api::WaitError { message: e.message }),
        });
        let mut bytes = serde_json::to_vec(&outcome).unwrap_or_default();
        bytes.push(b'\n');
        bytes.into()
    };
    Ok(respond::stream("application/json", Streamed::once(outcome, call.ends())))
}

fn with_stat(mut answer: Answer, stat: &api::PathStat) -> Handled {
    let json = serde_json::to_vec(stat).unwrap_or_default();
    let encoded = base64::engine::general_purpose::STANDARD.encode(json);
    // Base64 is always a valid header value.
    let value = HeaderValue::from_str(&encoded).map_err(|_| ApiError::invalid("path cannot be described"))?;
    answer.headers_mut().insert("x-docker-container-path-stat", value);
    Ok(answer)
}

async fn archive(call: Call) -> Handled {
    let path = call.query.text("path").to_owned();
    if path.is_empty() {
        return Err(ApiError::invalid("bad parameter: pathcannot be empty"));
    }
    match call.endpoint {
        Endpoint::ArchiveStat => {
            let stat = call.backends.containers.archive_stat(&call.name, &path).await?;
            with_stat(respond::empty(StatusCode::OK), &stat)
        }
        Endpoint::ArchiveGet => {
            let archive = call.backends.containers.archive_get(&call.name, &path).await?;
            with_stat(respond::stream(TAR, respond::bytes(archive.body, call.ends())), &archive.stat)
        }
        _ => {
            let options = ArchivePut {
                no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
                copy_uid_gid: call.query.flag("copyUIDGID"),
            };
            let (containers, name) = (call.backends.containers.clone(), call.name.clone());
            containers.archive_put(&name, &path, options, call.upload()).await?;
            Ok(respond::empty(StatusCode::OK))
        }
    }
}
