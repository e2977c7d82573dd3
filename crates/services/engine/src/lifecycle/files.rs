//! The files that a container sees as /etc/hosts, /etc/hostname and /etc/resolv.conf, written anew at each start.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use wharf_network::{Endpoint, HostsEntry, ResolvMode, ResolvOptions, hosts_file, resolv_conf, resolv_conf_path};

use crate::StartError;
use crate::config::EngineConfig;
use crate::container::ContainerRecord;
use crate::spec::Files;

fn write(path: PathBuf, text: &str) -> Result<PathBuf, StartError> {
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(StartError::File { operation: "write", path, source }),
    }
}

/// Writes the files of a container with a network of its own, or with the host's.
pub(super) fn write_all(
    engine: &EngineConfig,
    record: &ContainerRecord,
    endpoint: Option<&Endpoint>,
    gateway: Option<IpAddr>,
) -> Result<Files, StartError> {
    let folder = engine.container_folder(&record.id);
    let on_host = record.host.network_mode == "host";
    let config = &record.config;
    let hosts = if on_host && record.host.extra_hosts.as_ref().is_none_or(Vec::is_empty) {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        let own: Vec<IpAddr> = endpoint.map(addresses).unwrap_or_default();
        hosts_file(&own, &config.hostname, &config.domainname, &extra_hosts(engine, record, gateway))
    };
    let host_text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mode = match on_host {
        true => ResolvMode::Host,
        false => ResolvMode::Bridge { ipv6: endpoint.is_some_and(|e| e.ipv6.is_some()) },
    };
    let source = if on_host { "/etc/resolv.conf" } else { resolv_conf_path(&host_text) };
    let text = match source {
        "/etc/resolv.conf" => host_text,
        other => fs::read_to_string(other).unwrap_or_default(),
    };
    let resolv = resolv_conf(&text, source, mode, &resolv_options(engine, record)?);
    Ok(Files {
        resolv_conf: Some(write(folder.join("resolv.conf"), &resolv)?),
        hostname: Some(write(folder.join("hostname"), &format!("{}\n", config.hostname))?),
        hosts: Some(write(folder.join("hosts"), &hosts)?),
        shm: None,
    })
}

/// The files of the container whose network is joined.
pub(super) fn of_other(engine: &EngineConfig, other: &ContainerRecord) -> Files {
    let folder = engine.container_folder(&other.id);
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
