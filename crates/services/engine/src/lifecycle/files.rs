//! The files that a container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf, written anew at each start.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use wharf_network::{
    Endpoint, HostsEntry, ResolvMode, ResolvOptions, Server, hosts_file, resolv_conf, resolv_conf_path,
};

use super::Lifecycle;
use crate::StartError;
use crate::config::EngineConfig;
use crate::container::{ContainerRecord, Sandbox};
use crate::spec::Files;

fn write(path: PathBuf, text: &str) -> Result<PathBuf, StartError> {
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(StartError::File { operation: "write", path, source }),
    }
}

/// Writes the files of a container with a network of its own, or with the host's.
pub(super) fn write_all(
    lifecycle: &Lifecycle,
    record: &ContainerRecord,
    sandbox: Option<&Sandbox>,
) -> Result<Files, StartError> {
    let engine: &EngineConfig = &lifecycle.config;
    let folder = engine.shown_folder(record);
    if record.host.auto_remove {
        let made = fs::DirBuilder::new().recursive(true).mode(0o710).create(&folder);
        made.map_err(|source| StartError::File { operation: "mkdir", path: folder.clone(), source })?;
    }
    let files = Files {
        resolv_conf: Some(write(folder.join("resolv.conf"), &resolv(lifecycle, record, sandbox)?)?),
        hostname: Some(write(folder.join("hostname"), &format!("{}\n", record.config.hostname))?),
        hosts: Some(write(folder.join("hosts"), &hosts(lifecycle, record, sandbox))?),
        shm: None,
    };
    if let Some(users) = engine.users_of(&record.host) {
        let (uid, gid) = users.root();
        for path in [&files.resolv_conf, &files.hostname, &files.hosts].into_iter().flatten() {
            let given = std::os::unix::fs::chown(path, Some(uid), Some(gid));
            given.map_err(|source| StartError::File { operation: "chown", path: path.clone(), source })?;
        }
    }
    Ok(files)
}

/// Writes hosts and resolv.conf of a running container again, in place: they are mounted in it. Lines that the container
/// changed itself are lost only in hosts, as with Docker only where it wrote them.
pub(super) fn rewrite(lifecycle: &Lifecycle, record: &ContainerRecord, sandbox: &Sandbox) -> Result<(), StartError> {
    let folder = lifecycle.config.shown_folder(record);
    write(folder.join("hosts"), &hosts(lifecycle, record, Some(sandbox)))?;
    write(folder.join("resolv.conf"), &resolv(lifecycle, record, Some(sandbox))?)?;
    Ok(())
}

fn hosts(lifecycle: &Lifecycle, record: &ContainerRecord, sandbox: Option<&Sandbox>) -> String {
    let (engine, config) = (&lifecycle.config, &record.config);
    if record.host.network_mode == "host" && record.host.extra_hosts.as_ref().is_none_or(Vec::is_empty) {
        return fs::read_to_string("/etc/hosts").unwrap_or_default();
    }
    let own: Vec<IpAddr> = sandbox.iter().flat_map(|s| s.endpoints.values()).flat_map(addresses).collect();
    let mut extra = extra_hosts(engine, record, lifecycle.gateway());
    // A link that leads nowhere was an error of the start.
    let links = lifecycle.linked(record).unwrap_or_default();
    extra.extend(links.iter().map(|l| l.hosts_line()).map(|(address, name)| HostsEntry { address, name }));
    hosts_file(&own, &config.hostname, &config.domainname, &extra)
}

/// The servers that our resolver asks for a container.
pub(super) fn upstreams(lifecycle: &Lifecycle, record: &ContainerRecord) -> Vec<Server> {
    let host_text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let text = match resolv_conf_path(&host_text) {
        "/etc/resolv.conf" => host_text,
        other => fs::read_to_string(other).unwrap_or_default(),
    };
    // What cannot be read was refused when resolv.conf was written.
    let options = resolv_options(&lifecycle.config, record).unwrap_or_default();
    wharf_network::upstreams(&text, &options)
}

fn resolv(lifecycle: &Lifecycle, record: &ContainerRecord, sandbox: Option<&Sandbox>) -> Result<String, StartError> {
    let on_host = record.host.network_mode == "host";
    let host_text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let endpoints = || sandbox.iter().flat_map(|s| s.endpoints.values());
    let mode = match on_host {
        true => ResolvMode::Host,
        false if sandbox.is_some_and(super::names::is_resolved) => ResolvMode::Internal,
        false => ResolvMode::Bridge { ipv6: endpoints().any(|e| e.ipv6.is_some()) },
    };
    let source = if on_host { "/etc/resolv.conf" } else { resolv_conf_path(&host_text) };
    let text = match source {
        "/etc/resolv.conf" => host_text,
        other => fs::read_to_string(other).unwrap_or_default(),
    };
    Ok(resolv_conf(&text, source, mode, &resolv_options(&lifecycle.config, record)?))
}

/// The files of the container whose network is joined.
pub(super) fn of_other(engine: &EngineConfig, other: &ContainerRecord) -> Files {
    let folder = engine.shown_folder(other);
    let file = |name: &str| Some(folder.join(name)).filter(|p: &PathBuf| Path::exists(p));
    Files { resolv_conf: file("resolv.conf"), hostname: file("hostname"), hosts: file("hosts"), shm: None }
}

fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let v4 = endpoint.ipv4.map(|c| c.address());
    let v6 = endpoint.ipv6.map(|c| c.address());
    v4.into_iter().chain(v6).collect()
}

fn extra_hosts(engine: &EngineConfig, record: &ContainerRecord, gateway: Option<IpAddr>) -> Vec<HostsEntry> {
    let mut list = Vec::new();
    for entry in record.host.extra_hosts.iter().flatten() {
        let Some((name, address)) = entry.split_once([':', '=']) else { continue };
        let name = name.to_owned();
        if address != "host-gateway" {
            let parsed = address.trim_matches(['[', ']']).parse();
            list.extend(parsed.ok().map(|address| HostsEntry { address, name }));
        } else if engine.host_gateway.is_empty() {
            list.extend(gateway.map(|address| HostsEntry { address, name }));
        } else {
            let all = engine.host_gateway.iter();
            list.extend(all.map(|address| HostsEntry { address: *address, name: name.clone() }));
        }
    }
    list
}

fn resolv_options(engine: &EngineConfig, record: &ContainerRecord) -> Result<ResolvOptions, StartError> {
    let host = &record.host;
    let own = |list: &Option<Vec<String>>, default: &[String]| match list {
        Some(list) if !list.is_empty() => list.clone(),
        _ => default.to_vec(),
    };
    let servers = match host.dns.as_deref() {
        Some(list) if !list.is_empty() => {
            let parse = |text: &String| text.parse().map_err(|_| StartError::NameServer(text.clone()));
            list.iter().map(parse).collect::<Result<_, _>>()?
        }
        _ => engine.dns.clone(),
    };
    Ok(ResolvOptions {
        servers,
        search: own(&host.dns_search, &engine.dns_search),
        options: own(&host.dns_options, &engine.dns_options),
    })
}
