//! `GET /containers/{id}/json`.

use wharf_api_types::{ContainerInspect, ContainerState, DriverData, HostConfig, NetworkSettings};

use super::summary::port_map;
use super::{Lists, Sizes};
use crate::container::{ContainerRecord, Status, View};

fn state(view: &View) -> ContainerState {
    let state = &view.state;
    ContainerState {
        status: state.status.as_str().to_owned(),
        // Docker counts paused and restarting containers as running.
        running: state.status.is_running() || state.status == Status::Restarting,
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: view.task.as_ref().map_or(0, |t| i64::from(t.pid)),
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: state.started_at,
        finished_at: state.finished_at,
        health: view.health.clone(),
    }
}

/// The host configuration as inspect shows it: links with the names of both ends.
fn shown_host(record: &ContainerRecord) -> HostConfig {
    let mut host = record.host.clone();
    for link in host.links.iter_mut().flatten() {
        let (name, alias) = crate::lifecycle::split_link(link);
        *link = format!("/{name}:/{}/{alias}", record.name);
    }
    host
}

impl Lists {
    pub(super) fn describe(&self, view: &View, sizes: Option<Sizes>) -> ContainerInspect {
        let record = &view.record;
        let folder = self.config.container_folder(&record.id);
        let started = !view.state.started_at.is_zero();
        let own = |name: &str| match started && !record.host.network_mode.starts_with("container:") {
            true => self.config.shown_folder(record).join(name).display().to_string(),
            false => String::new(),
        };
        let mut command = record.command().into_iter();
        let path = command.next().unwrap_or_default();
        let log = crate::logging::log_config(record)
            .ok()
            .filter(|c| c.remote.is_none())
            .and_then(|c| c.file(record.id.as_str()));
        let execs: Vec<String> = view.execs.iter().map(ToString::to_string).collect();
        ContainerInspect {
            id: record.id.to_string(),
            created: record.created,
            path,
            args: command.collect(),
            state: state(view),
            image: record.image.clone(),
            resolv_conf_path: own("resolv.conf"),
            hostname_path: own("hostname"),
            hosts_path: own("hosts"),
            log_path: log.filter(|_| started).map(|f| folder.join(f).display().to_string()).unwrap_or_default(),
            name: format!("/{}", record.name),
            restart_count: view.state.restarts,
            driver: self.snapshots.name().to_owned(),
            platform: "linux".to_owned(),
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: shown_host(record),
            graph_driver: DriverData { data: None, name: self.snapshots.name().to_owned() },
            size_rw: sizes.map(|s| s.writable),
            size_root_fs: sizes.map(|s| s.root),
            mounts: self.mount_points(view),
            config: record.config.clone(),
            network_settings: self.network_settings(view),
            image_manifest_descriptor: record.manifest.clone(),
            ..ContainerInspect::default()
        }
    }

    fn network_settings(&self, view: &View) -> NetworkSettings {
        let mut settings =
            NetworkSettings { networks: self.endpoints(view), ports: port_map(view), ..Default::default() };
        if view.task.is_none() {
            return settings;
        }
        if view.record.host.network_mode == "host" {
            "/proc/1/ns/net".clone_into(&mut settings.sandbox_key);
        }
        let Some(sandbox) = view.sandbox.as_deref() else { return settings };
        if sandbox.endpoints.contains_key("bridge") {
            settings.bridge.clone_from(&self.config.bridge);
        }
        settings.sandbox_id.clone_from(&sandbox.id);
        let link = self.config.exec_root.join("netns").join(view.record.id.short());
        settings.sandbox_key = link.display().to_string();
        // The deprecated fields repeat the default bridge's.
        if let Some(bridge) = settings.networks.get("bridge").cloned() {
            settings.endpoint_id = bridge.endpoint_id;
            settings.gateway = bridge.gateway;
            settings.ip_address = bridge.ip_address;
            settings.ip_prefix_len = bridge.ip_prefix_len;
            settings.mac_address = bridge.mac_address;
            settings.ipv6_gateway = bridge.ipv6_gateway;
            settings.global_ipv6_address = bridge.global_ipv6_address;
            settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
        }
        settings
    }
}
