//! The control service: solve, status, workers, disk use, prune, history.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_build::{BuildRecord, BuildRequest, CachePlace, Collect, Exporter, Frontend, History, Settings, stamp};
use wharf_grpc::{Call, Code, Status};
use wharf_proto_buildkit::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRequest, BytesMessage, CacheOptionsEntry, DiskUsageRequest,
    DiskUsageResponse, InfoResponse, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use wharf_proto_buildkit::worker::{BuildkitVersion, WorkerRecord};

use crate::{Door, VERSION, convert};

/// Where cached steps may go.
const EXPORTS: [&str; 4] = ["local", "registry", "inline", "mounts"];

impl Door {
    pub(crate) async fn control(&self, method: &str, mut call: Call) -> Result<(), Status> {
        match method {
            "Solve" => {
                let request: SolveRequest = call.message().await?;
                let answer = self.solve(request).await?;
                call.sender.send(&answer).await
            }
            "Status" => self.status(call).await,
            "ListWorkers" => {
                let record = vec![worker()];
                call.sender.send(&ListWorkersResponse { record }).await
            }
            "Info" => call.sender.send(&InfoResponse { buildkit_version: Some(version()) }).await,
            "DiskUsage" => {
                let request: DiskUsageRequest = call.message().await?;
                let cache = self.builder.cache.clone();
                let list = tokio::task::spawn_blocking(move || {
                    cache.measure();
                    cache.list()
                });
                let list = list.await.map_err(|_| Status::new(Code::Internal, "interrupted"))?;
                let record = list.iter().map(|(id, record, used)| usage(id, record, *used));
                let record = record.filter(|r| fits(r, &request.filter)).collect();
                call.sender.send(&DiskUsageResponse { record }).await
            }
            "Prune" => self.prune(call).await,
            "ListenBuildHistory" => self.listen(call).await,
            "UpdateBuildHistory" => {
                let request: UpdateBuildHistoryRequest = call.message().await?;
                if !self.builder.histories.update(&request.r#ref, request.pinned, request.delete) && !request.finalize {
                    return Err(Status::new(Code::NotFound, format!("record {} not found", request.r#ref)));
                }
                call.sender.send(&UpdateBuildHistoryResponse {}).await
            }
            "Session" => self.nested_session(call).await,
            _ => Err(Status::new(
                Code::Unimplemented,
                format!("unknown method {method} for service moby.buildkit.v1.Control"),
            )),
        }
    }

    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let session = match request.session.as_str() {
            "" => None,
            id => Some(self.builder.sessions.get(id).await.map_err(|e| convert::status(&e))?),
        };
        let mut exporters: Vec<Exporter> =
            request.exporters.into_iter().map(|e| Exporter { kind: e.r#type, attrs: e.attrs }).collect();
        if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            exporters.push(Exporter { kind: request.exporter_deprecated, attrs: request.exporter_attrs_deprecated });
        }
        let allowed = |name: &str| request.entitlements.iter().any(|e| e == name);
        if allowed("security.insecure") {
            // CVE-2024-23653: who talks to the socket does not thereby get privileges for steps.
            return Err(Status::new(
                Code::PermissionDenied,
                "granting entitlement security.insecure is not allowed by build daemon configuration",
            ));
        }
        let attr = |name: &str| request.frontend_attrs.get(name);
        let epoch = attr("build-arg:SOURCE_DATE_EPOCH").filter(|t| !t.is_empty());
        let wrong = |text: &String| Status::new(Code::InvalidArgument, format!("invalid SOURCE_DATE_EPOCH: {text}"));
        let epoch = epoch.map(|text| text.parse::<i64>().map_err(|_| wrong(text))).transpose()?;
        let settings = Settings {
            network_host: allowed("network.host") || attr("force-network-mode").is_some_and(|m| m == "host"),
            insecure: false,
            pull: attr("image-resolve-mode").is_some_and(|m| m == "pull"),
            epoch,
        };
        let driven = request.frontend.is_empty() && request.definition.as_ref().is_none_or(|d| d.def.is_empty());
        let (driver, bridge) = match driven {
            true => {
                let (driver, bridge) = self.bridges.open(&request.r#ref);
                (Some(driver), Some(bridge))
            }
            false => (None, None),
        };
        let cache = request.cache.unwrap_or_default();
        let places = |list: Vec<CacheOptionsEntry>| -> Vec<CachePlace> {
            list.into_iter().map(|e| CachePlace { kind: e.r#type, attrs: e.attrs }).collect()
        };
        let (imports, exports) = (places(cache.imports), places(cache.exports));
        if let Some(other) = exports.iter().find(|e| !EXPORTS.contains(&e.kind.as_str())) {
            return Err(Status::new(
                Code::Unimplemented,
                format!(
                    "cache exporter {:?} is not supported: there are local, registry, inline and mounts",
                    other.kind
                ),
            ));
        }
        let input = Frontend { attrs: request.frontend_attrs, inputs: request.frontend_inputs };
        let wanted = BuildRequest {
            reference: request.r#ref.clone(),
            frontend: request.frontend,
            input,
            definition: request.definition.filter(|_| !driven),
            driver,
            exporters,
            session,
            settings,
            imports,
            exports,
            internal: request.internal,
            ..BuildRequest::default()
        };
        let done = self.builder.build(wanted).await;
        let told = bridge.and_then(|bridge| {
            self.bridges.close(&request.r#ref);
            bridge.told()
        });
        match (done, told) {
            (_, Some(status)) => Err(status),
            (Err(error), None) => Err(convert::status(&error)),
            (Ok(done), None) => Ok(SolveResponse { exporter_response: done.facts }),
        }
    }

    async fn status(&self, mut call: Call) -> Result<(), Status> {
        let request: StatusRequest = call.message().await?;
        let progress = self.builder.progress(&request.r#ref);
        let mut seen = 0;
        while let Some(events) = progress.after(seen).await {
            seen += events.len();
            for event in events {
                call.sender.send(&*event).await?;
            }
        }
        Ok(())
    }

    async fn prune(&self, mut call: Call) -> Result<(), Status> {
        let request: PruneRequest = call.message().await?;
        let mut wanted = Collect { all: request.all, ..Collect::default() };
        if request.keep_duration > 0 {
            wanted.unused_for = Some(request.keep_duration / 1_000_000_000);
        }
        let keep = request.reserved_space.max(request.max_used_space);
        wanted.keep = u64::try_from(keep).ok().filter(|k| *k > 0);
        let cache = self.builder.cache.clone();
        let work = move || {
            if !request.filter.is_empty() {
                let list = cache.list();
                let fitting = list.iter().filter(|(id, record, used)| fits(&usage(id, record, *used), &request.filter));
                wanted.only = Some(fitting.map(|(id, _, _)| id.clone()).collect());
            }
            cache.collect(&wanted)
        };
        let gone = tokio::task::spawn_blocking(work).await;
        let gone = gone.map_err(|_| Status::new(Code::Internal, "interrupted"))?.map_err(|e| convert::status(&e))?;
        for item in gone {
            call.sender.send(&usage(&item.id, &item.record, false)).await?;
        }
        Ok(())
    }

    async fn listen(&self, mut call: Call) -> Result<(), Status> {
        let request: BuildHistoryRequest = call.message().await?;
        let mut following = self.builder.histories.follow();
        let fits = |h: &History| {
            (request.r#ref.is_empty() || h.reference == request.r#ref)
                && (!request.active_only || h.completed.is_none())
        };
        let event = |h: &History| BuildHistoryEvent {
            r#type: if h.completed.is_some() { BuildHistoryEventType::Complete } else { BuildHistoryEventType::Started }
                as i32,
            record: Some(convert::history(h)),
        };
        for history in self.builder.histories.all().iter().rev().filter(|h| fits(h)) {
            call.sender.send(&event(history)).await?;
        }
        if request.early_exit {
            return Ok(());
        }
        loop {
            match following.recv().await {
                Ok(history) if fits(&history) => call.sender.send(&event(&history)).await?,
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// A session inside of a call, as `buildctl` opens it.
    async fn nested_session(&self, mut call: Call) -> Result<(), Status> {
        let header = |name: &str| call.metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let id = header("x-docker-expose-session-uuid");
        let key = header("x-docker-expose-session-sharedkey");
        let methods: Vec<String> = call
            .metadata
            .get_all("x-docker-expose-session-grpc-method")
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        let (mut reading, mut writing) = tokio::io::split(ours);
        let sender = call.sender.clone();
        let out = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n) = reading.read(&mut buffer).await {
                if n == 0 || sender.send(&BytesMessage { data: buffer[..n].to_vec() }).await.is_err() {
                    break;
                }
            }
        };
        let back = async {
            while let Ok(Some(message)) = call.receiver.message::<BytesMessage>().await {
                if writing.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            // The session ends with the call.
            let _ = writing.shutdown().await;
        };
        tokio::select! {
            () = self.session(&id, &key, methods, theirs) => {}
            ((), ()) = async { tokio::join!(out, back) } => {}
        }
        Ok(())
    }
}

fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "github.com/moby/buildkit".to_owned(),
        version: VERSION.to_owned(),
        ..BuildkitVersion::default()
    }
}

/// The one worker: this daemon.
pub(crate) fn worker() -> WorkerRecord {
    let platform = wharf_build::this_platform();
    let labels: BTreeMap<String, String> = [
        ("org.mobyproject.buildkit.worker.executor", "containerd"),
        ("org.mobyproject.buildkit.worker.snapshotter", "overlayfs"),
        ("org.mobyproject.buildkit.worker.moby.host-gateway-ip", "172.17.0.1"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    WorkerRecord {
        id: "wharf".to_owned(),
        labels,
        platforms: vec![wharf_build::to_platform(&platform)],
        buildkit_version: Some(version()),
        ..WorkerRecord::default()
    }
}

/// Whether a record fits one of the filters, of each of which all parts must fit: `field`, `field==text`,
/// `field!=text`, `field~=part`, as containerd's filters are written.
fn fits(record: &UsageRecord, filters: &[String]) -> bool {
    let yes = |value: bool| if value { "true" } else { "" }.to_owned();
    let value = |field: &str| match field {
        "id" => record.id.clone(),
        "type" => record.record_type.clone(),
        "description" => record.description.clone(),
        "inuse" => yes(record.in_use),
        "mutable" => yes(record.mutable),
        "immutable" => yes(!record.mutable),
        "shared" => yes(record.shared),
        "private" => yes(!record.shared),
        _ => String::new(),
    };
    let part = |part: &str| {
        let (field, text, how) = if let Some((field, text)) = part.split_once("!=") {
            (field, text, '!')
        } else if let Some((field, text)) = part.split_once("~=") {
            (field, text, '~')
        } else if let Some((field, text)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (field, text, '=')
        } else {
            (part, "", '?')
        };
        let (value, text) = (value(field.trim()), text.trim().trim_matches('"'));
        match how {
            '!' => value != text,
            '~' => value.contains(text),
            '=' => value == text,
            _ => !value.is_empty(),
        }
    };
    // An empty filter fits everything; buildx sends one where it has none.
    filters.is_empty() || filters.iter().any(|filter| filter.is_empty() || filter.split(',').all(part))
}

fn usage(id: &str, record: &BuildRecord, used: bool) -> UsageRecord {
    UsageRecord {
        id: id.to_owned(),
        mutable: record.snapshot.writable,
        in_use: used,
        size: i64::try_from(record.size.unwrap_or(0)).unwrap_or(0),
        created_at: Some(stamp(record.created)),
        last_used_at: Some(stamp(record.used)),
        usage_count: i64::try_from(record.uses).unwrap_or(0),
        description: record.description.clone(),
        record_type: record.kind.clone(),
        ..UsageRecord::default()
    }
}
