//! The engine as a whole, networks, volumes and events.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use wharf_api_server::ApiError;
use wharf_api_server::backend::{
    EventBackend, Incoming, NetworkBackend, Outgoing, Reply, SystemBackend, VolumeBackend,
};
use wharf_api_types as api;
use wharf_api_types::query;
use wharf_engine::check::{self, Outcome};
use wharf_engine::events::Event;
use wharf_error::Kind;
use wharf_image::{Fault, Finding, Subject};
use wharf_types::Timestamp;

use super::bodies::{BodyReader, BodyWriter};
use super::images::summary;
use super::{Joined, blocking, later, ready};

fn store_finding(finding: Finding, images: Vec<String>, outcome: &Outcome) -> api::StoreFinding {
    let (kind, subject) = match finding.subject {
        Subject::Blob(blob) => ("blob", blob.digest.to_string()),
        Subject::Layer(chain) => ("layer", chain.to_string()),
    };
    let fault = match finding.fault {
        Fault::Missing => "missing",
        Fault::Damaged => "damaged",
    };
    let words = match outcome {
        Outcome::Found => String::new(),
        Outcome::Fetched(from) => format!("fetched again from {from}"),
        Outcome::Unpacked => "unpacked anew".to_owned(),
        Outcome::Dropped(ids) => {
            let ids: Vec<&str> = ids.iter().map(wharf_image::ImageId::short).collect();
            format!("cannot be had, so removed: {}", ids.join(", "))
        }
        Outcome::Kept(reason) => format!("cannot be had, and containers use it: {reason}"),
    };
    api::StoreFinding {
        kind: kind.to_owned(),
        subject,
        fault: fault.to_owned(),
        images,
        mended: outcome.is_mended(),
        outcome: words,
    }
}

impl SystemBackend for Joined {
    fn version(&self) -> Reply<'_, api::Version> {
        Box::pin(std::future::ready(Ok(self.0.system.version())))
    }

    fn info(&self) -> Reply<'_, api::Info> {
        let system = self.0.system.clone();
        blocking(move || Ok::<_, ApiError>(system.info()))
    }

    fn disk_usage(&self, query: query::DiskUsage) -> Reply<'_, api::DiskUsage> {
        let engine = self.0.clone();
        Box::pin(async move {
            let build_cache = if query.build_cache { Some(self.build_cache().await?) } else { None };
            let of_engine = blocking(move || -> Result<_, ApiError> {
                let more = wharf_image::More { shared: true, ..wharf_image::More::default() };
                let rows = engine.images.list(&Default::default(), more).map_err(|e| ApiError::of(&e))?;
                let images: Vec<_> = rows.iter().map(|row| summary(row, &engine.images)).collect();
                Ok(api::DiskUsage {
                    layers_size: engine.images.usage().map_err(|e| ApiError::of(&e))? as i64,
                    images: query.images.then_some(images),
                    containers: query.containers.then(|| engine.lists.disk_usage()),
                    volumes: query.volumes.then(|| engine.volumes.disk_usage()),
                    build_cache: None,
                })
            });
            Ok(api::DiskUsage { build_cache, ..of_engine.await? })
        })
    }

    fn check(&self, repair: bool) -> Reply<'_, api::StoreCheck> {
        let engine = self.0.clone();
        Box::pin(async move {
            let report =
                check::check(&engine.images, &engine.registries, repair).await.map_err(|e| ApiError::of(&e))?;
            let findings =
                report.findings.into_iter().map(|(finding, images, outcome)| store_finding(finding, images, &outcome));
            Ok(api::StoreCheck {
                blobs: report.blobs as i64,
                bytes: report.bytes as i64,
                layers: report.layers as i64,
                findings: findings.collect(),
            })
        })
    }

    fn debug_vars(&self) -> Option<serde_json::Value> {
        let info = self.0.system.info();
        info.debug.then(|| {
            let arguments: Vec<String> = std::env::args().collect();
            serde_json::json!({
                "cmdline": arguments,
                "version": info.server_version,
                "threads": info.n_goroutines,
                "files": info.n_fd,
                "containers": info.containers,
                "events": self.0.events.published(),
                "listeners": info.n_events_listener,
            })
        })
    }
}

impl NetworkBackend for Joined {
    fn list(&self, filters: api::Filters) -> Reply<'_, Vec<api::Network>> {
        ready(self.0.networks.list(&filters))
    }

    fn inspect<'a>(&'a self, name: &'a str, _: &'a str) -> Reply<'a, api::Network> {
        ready(self.0.networks.inspect(name))
    }

    fn create(&self, request: api::NetworkCreateRequest) -> Reply<'_, api::NetworkCreateResponse> {
        later(self.0.networks.create(request))
    }

    fn remove<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        later(self.0.networks.remove(name))
    }

    fn connect<'a>(&'a self, name: &'a str, request: api::NetworkConnectRequest) -> Reply<'a, ()> {
        later(self.0.networks.connect(name, request))
    }

    fn disconnect<'a>(&'a self, name: &'a str, request: api::NetworkDisconnectRequest) -> Reply<'a, ()> {
        later(self.0.networks.disconnect(name, request))
    }

    fn prune(&self, filters: api::Filters) -> Reply<'_, api::NetworkPruneResponse> {
        later(async move { self.0.networks.prune(&filters).await })
    }
}

impl VolumeBackend for Joined {
    fn list(&self, filters: api::Filters) -> Reply<'_, api::VolumeList> {
        let volumes = self.0.volumes.clone();
        blocking(move || volumes.list(&filters))
    }

    fn inspect<'a>(&'a self, name: &'a str) -> Reply<'a, api::Volume> {
        let (volumes, name) = (self.0.volumes.clone(), name.to_owned());
        blocking(move || volumes.inspect(&name))
    }

    fn create(&self, request: api::VolumeCreateRequest) -> Reply<'_, api::Volume> {
        later(self.0.volumes.create(request))
    }

    fn remove<'a>(&'a self, name: &'a str, force: bool) -> Reply<'a, ()> {
        later(self.0.volumes.remove(name, force))
    }

    fn prune(&self, filters: api::Filters) -> Reply<'_, api::VolumePruneResponse> {
        later(async move { self.0.volumes.prune(&filters).await })
    }

    fn rename<'a>(&'a self, name: &'a str, new_name: &'a str) -> Reply<'a, ()> {
        later(self.0.volumes.rename(name, new_name))
    }

    fn clone_as<'a>(&'a self, name: &'a str, new_name: &'a str) -> Reply<'a, api::Volume> {
        later(self.0.volumes.clone_as(name, new_name))
    }

    fn export<'a>(&'a self, name: &'a str) -> Reply<'a, Outgoing<Bytes>> {
        let (volumes, name) = (self.0.volumes.clone(), name.to_owned());
        Box::pin(async move {
            // An unknown name must become a status, so it is looked up before the body begins.
            let (looked, wanted) = (volumes.clone(), name.clone());
            blocking(move || looked.inspect(&wanted)).await?;
            let (sender, receiver) = mpsc::channel(4);
            tokio::task::spawn_blocking(move || {
                use std::io::Write;
                let mut writer = BodyWriter::new(sender.clone());
                match volumes.export(&name, &mut writer) {
                    // A client that left is no fault of ours.
                    Ok(()) => drop(writer.flush()),
                    Err(e) => drop(sender.blocking_send(Err(ApiError::of(&e)))),
                }
            });
            Ok(receiver)
        })
    }

    fn import<'a>(&'a self, name: &'a str, body: Incoming) -> Reply<'a, ()> {
        let (volumes, name) = (self.0.volumes.clone(), name.to_owned());
        blocking(move || volumes.import(&name, Box::new(BodyReader::new(body))))
    }
}

fn message(event: &Event) -> api::EventMessage {
    let attributes = event.attributes.clone().into_iter().collect();
    api::EventMessage::new(event.subject.as_str(), &event.action, &event.id, attributes, event.at)
}

fn timestamp(nanos: i128) -> Timestamp {
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
    Timestamp::from_unix(seconds, nanos.rem_euclid(1_000_000_000) as u32)
}

/// Lines that wait for a client before it counts as too slow.
const WAITING: usize = 1024;

/// The moment at which a stream ends, on the clock that timers use.
fn end_of(until: Option<Timestamp>) -> Option<Instant> {
    let left = until?.unix_nanos() - Timestamp::now().unix_nanos();
    let left = u64::try_from(left).unwrap_or_default();
    Some(Instant::now() + std::time::Duration::from_nanos(left))
}

impl EventBackend for Joined {
    fn subscribe(&self, query: query::Events) -> Reply<'_, Outgoing<api::EventMessage>> {
        let since = query.since.map(timestamp);
        let until = query.until.map(timestamp);
        // As Docker: with an end in the past and no beginning, everything remembered is replayed up to it.
        let ended = until.is_some_and(|u| u <= Timestamp::now());
        let since = since.or_else(|| ended.then(Timestamp::default));
        let subscription = self.0.events.subscribe(since);
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let wanted = |e: &Arc<Event>| e.passes(&query.filters) && until.is_none_or(|u| e.at <= u);
            let (past, filters, out) = (subscription.past, query.filters.clone(), sender.clone());
            let replayed = tokio::task::spawn_blocking(move || {
                let wanted = |e: &Arc<Event>| e.passes(&filters) && until.is_none_or(|u| e.at <= u);
                past.events().filter(wanted).all(|e| out.blocking_send(Ok(message(&e))).is_ok())
            });
            if !replayed.await.unwrap_or(false) {
                return;
            }
            let mut live = subscription.live;
            let end = end_of(until);
            loop {
                let event = tokio::select! {
                    event = live.recv() => event,
                    () = sender.closed() => return,
                    () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return,
                };
                match event {
                    Ok(event) if wanted(&event) => {
                        if sender.send(Ok(message(&event))).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    // The client did not keep up; what it missed cannot be had again, so the stream ends with an error.
                    Err(_) => {
                        let lost = ApiError::new(Kind::System, "the client reads events too slowly");
                        let _ = sender.send(Err(lost)).await;
                        return;
                    }
                }
            }
        });
        Box::pin(std::future::ready(Ok(receiver)))
    }
}
