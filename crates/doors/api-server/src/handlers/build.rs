//! Building: the classic door, and the connections that BuildKit's clients take over.

use http::StatusCode;
use tokio::net::UnixStream;

use crate::backend::{BuildPrune, BuildQuery, SessionHead, Stdio};
use crate::call::{Call, Handled};
use crate::detach::DetachKeys;
use crate::hijack::{self, After, Takeover};
use crate::routes::Endpoint;
use crate::{ApiError, respond};

/// Carries out a request.
pub async fn handle(call: Call) -> Handled {
    match call.endpoint {
        Endpoint::Grpc | Endpoint::Session if !call.upgrade() => Err(ApiError::invalid("no upgrade proto in request")),
        Endpoint::Grpc => {
            let stream = call.backends.build.grpc().await?;
            Ok(hand_over(&call, stream))
        }
        Endpoint::Session => {
            let head = session_head(&call);
            if head.id.is_empty() {
                return Err(ApiError::invalid("no session id in request"));
            }
            let stream = call.backends.build.session(head).await?;
            Ok(hand_over(&call, stream))
        }
        Endpoint::Build => build(call).await,
        Endpoint::BuildCancel => {
            let id = call.query.text("id").to_owned();
            if id.is_empty() {
                return Err(ApiError::invalid("build ID not provided"));
            }
            call.backends.build.cancel(&id).await?;
            Ok(respond::empty(StatusCode::OK))
        }
        _ => {
            let q = &call.query;
            let keep = ["reserved-space", "max-used-space", "keep-storage"]
                .iter()
                .find_map(|k| q.number(k).ok().flatten())
                .and_then(|n| u64::try_from(n).ok())
                .filter(|n| *n > 0);
            let (ids, bytes) = call
                .backends
                .build
                .prune(BuildPrune { all: q.flag("all"), keep, filters: q.filters()?, dry: q.flag("dry-run") })
                .await?;
            let ids = Some(ids).filter(|i| !i.is_empty());
            Ok(respond::json(StatusCode::OK, &serde_json::json!({"CachesDeleted": ids, "SpaceReclaimed": bytes})))
        }
    }
}

fn session_head(call: &Call) -> SessionHead {
    let header = |name: &str| call.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let methods = call.headers.get_all("x-docker-expose-session-grpc-method").iter();
    SessionHead {
        id: header("x-docker-expose-session-uuid"),
        shared_key: header("x-docker-expose-session-sharedkey"),
        methods: methods.filter_map(|v| v.to_str().ok().map(str::to_owned)).collect(),
    }
}

/// Joins the client's connection to a stream, byte for byte.
fn hand_over(call: &Call, stream: UnixStream) -> respond::Answer {
    let stdio = Stdio {
        tty: false,
        stdin: true,
        stream: Box::pin(std::future::ready(Ok(stream))),
        ended: Box::pin(std::future::ready(())),
        detach_keys: String::new(),
        on_detach: Box::new(|| {}),
    };
    call.take_over(Takeover { head: hijack::upgraded_head(), after: After::Raw(stdio, DetachKeys::default()) })
}

async fn build(call: Call) -> Handled {
    let query = build_query(&call)?;
    let (builder, ends) = (call.backends.build.clone(), call.ends());
    let lines = builder.build(query, call.upload()).await?;
    Ok(respond::stream("application/json", respond::progress(None, lines, ends)))
}

fn build_query(call: &Call) -> Result<BuildQuery, ApiError> {
    let q = &call.query;
    let json = |name: &str| -> Result<serde_json::Map<String, serde_json::Value>, ApiError> {
        match q.text(name) {
            "" => Ok(serde_json::Map::new()),
            text => serde_json::from_str::<Option<_>>(text)
                .map(Option::unwrap_or_default)
                .map_err(|e| ApiError::invalid(format!("error reading {name}: {e}"))),
        }
    };
    let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
    let ulimits: Vec<serde_json::Value> = match q.text("ulimits") {
        "" => Vec::new(),
        given => {
            serde_json::from_str(given).map_err(|e| ApiError::invalid(format!("error reading ulimit settings: {e}")))?
        }
    };
    let limit = |u: &serde_json::Value| {
        let number = |k: &str| u.get(k).and_then(serde_json::Value::as_i64).unwrap_or(-1);
        Some(format!("{}={}:{}", u.get("Name")?.as_str()?, number("Soft"), number("Hard")))
    };
    Ok(BuildQuery {
        tags: q.all("t"),
        dockerfile: q.text("dockerfile").to_owned(),
        remote: q.text("remote").to_owned(),
        target: q.text("target").to_owned(),
        args: json("buildargs")?.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
        labels: json("labels")?.iter().map(|(k, v)| (k.clone(), text(v).unwrap_or_default())).collect(),
        hosts: q.all("extrahosts"),
        ulimits: ulimits.iter().filter_map(limit).collect(),
        no_cache: q.flag("nocache"),
        pull: q.flag("pull"),
        network: q.text("networkmode").to_owned(),
        platform: q.text("platform").to_owned(),
        shm_size: q.number("shmsize")?.unwrap_or(0),
        cgroup_parent: q.text("cgroupparent").to_owned(),
        quiet: q.flag("q"),
        squash: q.flag("squash"),
        id: q.text("buildid").to_owned(),
    })
}
