//! From a create request and an image to what is stored: the image's configuration merged in, defaults filled in.

use std::collections::{BTreeMap, BTreeSet};

use wharf_api_types::go::{Unit, Words};
use wharf_api_types::{ContainerConfig, HealthConfig, HostConfig};
use wharf_oci::image;

use super::CreateError;
use super::mounts::{self, MountError, Point, Source};
use crate::config::EngineConfig;
use crate::spec::{MASKED, READONLY};

/// Merges the image's configuration into the request's (moby `daemon/container_operations... merge`).
pub fn merge(config: &mut ContainerConfig, image: &image::Config) -> Result<(), CreateError> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    if !image.exposed_ports.is_empty() {
        let ports = config.exposed_ports.get_or_insert_default();
        image.exposed_ports.keys().for_each(|port| {
            ports.entry(port.clone()).or_insert(Unit {});
        });
    }
    environment(config, image);
    if !image.labels.is_empty() {
        let labels = config.labels.get_or_insert_default();
        for (key, value) in &image.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    command(config, image);
    health(config, image);
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if !image.volumes.is_empty() {
        let volumes = config.volumes.get_or_insert_default();
        image.volumes.keys().for_each(|v| {
            volumes.entry(v.clone()).or_insert(Unit {});
        });
    }
    // The stock command line sends an empty map; inspect shows null, as moby's.
    config.volumes = config.volumes.take().filter(|v| !v.is_empty());
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    if config.shell.is_none() && !image.shell.is_empty() {
        config.shell = Some(Words(image.shell.clone()));
    }
    let words = |w: &Option<Words>| w.as_ref().map_or(0, |w| w.len());
    if words(&config.entrypoint) + words(&config.cmd) == 0 {
        return Err(CreateError::NoCommand);
    }
    Ok(())
}

fn environment(config: &mut ContainerConfig, image: &image::Config) {
    if image.env.is_empty() {
        return;
    }
    let own = config.env.get_or_insert_default();
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let given: BTreeSet<String> = own.iter().map(|e| name(e)).collect();
    own.extend(image.env.iter().filter(|e| !given.contains(&name(e))).cloned());
}

fn command(config: &mut ContainerConfig, image: &image::Config) {
    let empty = |w: &Option<Words>| w.as_ref().is_none_or(|w| w.is_empty());
    if !empty(&config.entrypoint) {
        return;
    }
    if empty(&config.cmd) {
        config.cmd = image.cmd.clone().map(Words);
        config.args_escaped = image.args_escaped;
    }
    if config.entrypoint.is_none() {
        config.entrypoint = image.entrypoint.clone().map(Words);
    }
}

fn health(config: &mut ContainerConfig, image: &image::Config) {
    let Some(theirs) = &image.healthcheck else { return };
    let own = config.healthcheck.get_or_insert_with(HealthConfig::default);
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test = Some(theirs.test.clone());
    }
    let times = [
        (&mut own.interval, theirs.interval),
        (&mut own.timeout, theirs.timeout),
        (&mut own.start_period, theirs.start_period),
        (&mut own.start_interval, theirs.start_interval),
        (&mut own.retries, theirs.retries),
    ];
    for (mine, inherited) in times {
        if *mine == 0 {
            *mine = inherited;
        }
    }
}

/// Fills in what the request leaves open, as Docker shows it afterwards.
pub fn defaults(host: &mut HostConfig, engine: &EngineConfig) {
    if matches!(host.network_mode.as_str(), "" | "default") {
        "bridge".clone_into(&mut host.network_mode);
    }
    let text = |value: &mut String, default: &str| {
        if value.is_empty() {
            default.clone_into(value);
        }
    };
    text(&mut host.ipc_mode, engine.ipc_mode);
    let cgroupns = if host.privileged && engine.cgroupns_mode == "host" { "host" } else { engine.cgroupns_mode };
    text(&mut host.cgroupns_mode, cgroupns);
    text(&mut host.runtime, &engine.live.get().runtimes.default);
    text(&mut host.restart_policy.name, "no");
    // 0 is "no limit", which moby shows as null.
    host.pids_limit = host.pids_limit.filter(|limit| *limit != 0);
    if host.shm_size == 0 {
        host.shm_size = engine.shm_size;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        // Docker's default: as much swap as memory.
        host.memory_swap = host.memory * 2;
    }
    host.oom_kill_disable.get_or_insert(false);
    let config = host.log_config.config.get_or_insert_default();
    if host.log_config.r#type.is_empty() {
        host.log_config.r#type.clone_from(&engine.log_driver);
    }
    if host.log_config.r#type == engine.log_driver {
        for (key, value) in &engine.log_options {
            config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let own = |paths: &[&str]| Some(paths.iter().map(|p| (*p).to_owned()).collect());
    if !host.privileged {
        host.masked_paths = host.masked_paths.take().or_else(|| own(MASKED));
        host.readonly_paths = host.readonly_paths.take().or_else(|| own(READONLY));
    }
}

/// Reads all mount points: those of other containers, `Binds`, `Mounts`, then the volumes that the image or the request
/// names and that nothing else covers.
pub fn points(
    config: &ContainerConfig,
    host: &HostConfig,
    from: &[(Vec<Point>, Option<bool>)],
) -> Result<Vec<Point>, MountError> {
    let mut all = BTreeMap::<String, Point>::new();
    for (points, read_only) in from {
        for point in points {
            let mut point = point.clone();
            point.read_only |= *read_only == Some(true);
            // Docker takes over the place and not the words of the other container's mode.
            point.mode.clear();
            if let Source::Volume { anonymous, .. } = &mut point.source {
                // It belongs to the container it comes from.
                *anonymous = false;
            }
            all.insert(point.target.clone(), point);
        }
    }
    let mut own = BTreeSet::new();
    let tmpfs: Vec<String> = host.tmpfs.iter().flatten().map(|(t, _)| t.clone()).collect();
    if let Some(relative) = tmpfs.iter().find(|t| !t.starts_with('/')) {
        return Err(MountError::TmpfsPath(relative.clone()));
    }
    own.extend(tmpfs.iter().map(|t| mounts::clean(t)));
    let mut add = |mut point: Point| {
        if !own.insert(point.target.clone()) {
            return Err(MountError::Duplicate(point.target));
        }
        if let Source::Volume { name, driver, .. } = &mut point.source {
            if driver.is_empty() && !point.explicit {
                driver.clone_from(&host.volume_driver);
            }
            if !name.is_empty() && matches!(driver.as_str(), "" | "local") {
                mounts::check_volume_name(name)?;
            }
        }
        all.insert(point.target.clone(), point);
        Ok(())
    };
    for bind in host.binds.iter().flatten() {
        add(mounts::parse_bind(bind)?)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(mounts::of_mount(mount))?;
    }
    for target in config.volumes.iter().flat_map(BTreeMap::keys) {
        let mut point = mounts::anonymous(target);
        if let Source::Volume { driver, .. } = &mut point.source {
            driver.clone_from(&host.volume_driver);
        }
        if point.target == "/" {
            let reason = "invalid specification: destination can't be '/'".to_owned();
            return Err(MountError::Config { kind: "volume".to_owned(), reason });
        }
        if !own.contains(&point.target) && !all.contains_key(&point.target) {
            all.insert(point.target.clone(), point);
        }
    }
    Ok(all.into_values().collect())
}
