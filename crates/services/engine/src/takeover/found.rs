//! What is in the data root of a Docker engine that does not run.
//!
//! ```text
//! containers/<id>/{config.v2.json,hostconfig.json,<id>-json.log}      volumes/metadata.db, volumes/<name>/_data
//! network/files/local-kv.db                                             docker/network/v1.0/network/<id>/: 8 bytes, JSON
//! image/overlay2/repositories.json, imagedb/content/sha256/<id>         image/overlay2/layerdb/sha256/<chain>/{cache-id,parent,tar-split.json.gz}
//! image/overlay2/layerdb/mounts/<container>/mount-id                    overlay2/<cache-id or mount-id>/diff
//! containerd/daemon/io.containerd.metadata.v1.bolt/meta.db              v1/moby/images/<name>/target/{digest,mediatype,size}
//! containerd/daemon/io.containerd.snapshotter.v1.overlayfs/             metadata.db: v1/snapshots/moby/<n>/<container>/id; snapshots/<id>/fs
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use wharf_api_types::{
    ContainerConfig, EndpointSettings, HostConfig, Ipam, IpamConfig, NetworkCreateRequest, StringMap,
    VolumeCreateRequest,
};
use wharf_types::{Digest, Timestamp};

use super::bolt::{Bolt, Item};
use super::layers::{Image, Layer, Source};
use super::{TakeoverError, io_failed};
use crate::container::LastRun;

/// Everything that can be taken over, and what cannot.
#[derive(Debug, Default)]
pub struct Found {
    pub(super) images: Vec<Image>,
    pub(super) volumes: Vec<FoundVolume>,
    pub(super) networks: Vec<NetworkCreateRequest>,
    pub(super) containers: Vec<FoundContainer>,
    pub(super) left: Vec<String>,
}

#[derive(Debug)]
pub(super) struct FoundVolume {
    pub(super) request: VolumeCreateRequest,
    /// Its content, unless something else is mounted there.
    pub(super) data: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct FoundContainer {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: Timestamp,
    pub(super) image: String,
    pub(super) config: ContainerConfig,
    pub(super) host: HostConfig,
    pub(super) networks: BTreeMap<String, EndpointSettings>,
    pub(super) last: LastRun,
    /// Volumes by the path at which they are mounted.
    pub(super) volumes: BTreeMap<String, MountPoint>,
    /// What it has written.
    pub(super) layer: Option<PathBuf>,
    pub(super) folder: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct MountPoint {
    pub(super) r#type: String,
    pub(super) name: String,
    pub(super) driver: String,
    #[serde(rename = "RW")]
    pub(super) writable: bool,
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, TakeoverError> {
    let bytes = fs::read(path).map_err(io_failed("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| TakeoverError::Json { path: path.to_owned(), source })
}

fn names(folder: &Path) -> Result<Vec<String>, TakeoverError> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut names: Vec<_> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
            names.sort();
            Ok(names)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io_failed("read", folder)(e)),
    }
}

fn line(path: &Path) -> Result<String, TakeoverError> {
    Ok(fs::read_to_string(path).map_err(io_failed("read", path))?.trim().to_owned())
}

/// Looks through a data root. Nothing in it is changed.
///
/// # Errors
/// [`TakeoverError`]; also where an engine runs on it.
pub fn look(root: &Path) -> Result<Found, TakeoverError> {
    if !root.join("engine-id").exists() && !root.join("containers").is_dir() {
        return Err(TakeoverError::NotDocker(root.to_owned()));
    }
    let (networks, bridges) = networks(root)?;
    let mut found = Found { volumes: volumes(root)?, networks, ..Found::default() };
    if !bridges.is_empty() {
        let bridges = bridges.join(" ");
        found
            .left
            .push(format!("links of that engine, which have the same addresses: ip link del, or boot: {bridges}"));
    }
    let snapshots = Snapshots::open(root)?;
    for id in names(&root.join("containers"))? {
        match container(root, &id, &snapshots)? {
            Ok(container) => found.containers.push(container),
            Err(why) => found.left.push(format!("container {id}: {why}")),
        }
    }
    let used: BTreeSet<&str> = found.containers.iter().map(|c| c.image.as_str()).collect();
    let of_docker = root.join("image/overlay2");
    found.images = if of_docker.join("imagedb").exists() { images(root, &of_docker, &used)? } else { Vec::new() };
    found.images.extend(snapshots.images(root)?);
    for driver in names(&root.join("image"))?.iter().filter(|driver| *driver != "overlay2") {
        found.left.push(format!("images and containers of the storage driver {driver}"));
    }
    for (what, place) in
        [("the build cache", "buildkit"), ("plugins", "plugins/storage"), ("swarm state", "swarm/state.json")]
    {
        if root.join(place).exists() {
            found.left.push(what.to_owned());
        }
    }
    Ok(found)
}

fn volumes(root: &Path) -> Result<Vec<FoundVolume>, TakeoverError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Metadata {
        driver: String,
        labels: Option<StringMap>,
        options: Option<StringMap>,
    }
    let folder = root.join("volumes");
    let mut records = BTreeMap::new();
    let path = folder.join("metadata.db");
    if let Some(file) = Bolt::open(&path)?
        && let Some(bucket) = file.bucket(&["volumes"])?
    {
        for (name, item) in file.items(&bucket)? {
            let Item::Value(value) = item else { continue };
            let parsed = serde_json::from_slice::<Metadata>(&value);
            let metadata = parsed.map_err(|source| TakeoverError::Json { path: path.clone(), source })?;
            records.insert(String::from_utf8_lossy(&name).into_owned(), metadata);
        }
    }
    // Very old engines kept no records of volumes without labels and options.
    for name in names(&folder)? {
        if folder.join(&name).join("_data").is_dir() {
            records.entry(name).or_default();
        }
    }
    let volume = |(name, metadata): (String, Metadata)| {
        let data = folder.join(&name).join("_data");
        let plain = matches!(metadata.driver.as_str(), "" | "local")
            && !metadata.options.iter().flatten().any(|(key, value)| key == "device" && !value.is_empty());
        let request = VolumeCreateRequest {
            name,
            driver: metadata.driver,
            driver_opts: metadata.options,
            labels: metadata.labels,
        };
        FoundVolume { request, data: (plain && data.is_dir()).then_some(data) }
    };
    Ok(records.into_iter().map(volume).collect())
}

/// The networks, and those of their bridges that are still on the host: Docker leaves them when it stops.
fn networks(root: &Path) -> Result<(Vec<NetworkCreateRequest>, Vec<String>), TakeoverError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Range {
        preferred_pool: String,
        sub_pool: String,
        gateway: String,
        aux_addresses: Option<StringMap>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Network {
        id: String,
        name: String,
        network_type: String,
        #[serde(rename = "enableIPv4")]
        ipv4: Option<bool>,
        #[serde(rename = "enableIPv6")]
        ipv6: bool,
        internal: bool,
        attachable: bool,
        config_only: bool,
        config_from: String,
        in_delete: bool,
        scope: String,
        labels: Option<StringMap>,
        ipam_type: String,
        ipam_options: Option<StringMap>,
        // JSON within JSON.
        ipam_v4_config: String,
        ipam_v6_config: String,
        generic: BTreeMap<String, serde_json::Value>,
    }
    let path = root.join("network/files/local-kv.db");
    let Some(file) = Bolt::open(&path)? else { return Ok(Default::default()) };
    let Some(bucket) = file.bucket(&["libnetwork"])? else { return Ok(Default::default()) };
    let (mut all, mut bridges) = (Vec::new(), Vec::new());
    for (key, item) in file.items(&bucket)? {
        let Item::Value(value) = item else { continue };
        if !key.starts_with(b"docker/network/v1.0/network/") {
            continue;
        }
        // A count of the store's own stands in front.
        let text = value.get(8..).unwrap_or_default();
        let damaged = |source| TakeoverError::Json { path: path.clone(), source };
        let network: Network = serde_json::from_slice(text).map_err(damaged)?;
        let built_in = matches!(network.name.as_str(), "bridge" | "host" | "none");
        if built_in || network.in_delete || network.scope == "swarm" {
            continue;
        }
        let mut ranges = Vec::new();
        for text in [&network.ipam_v4_config, &network.ipam_v6_config].into_iter().filter(|text| !text.is_empty()) {
            let list: Vec<Range> = serde_json::from_str(text).map_err(damaged)?;
            // Ranges that nobody asked for are chosen anew.
            ranges.extend(list.into_iter().filter(|r| !r.preferred_pool.is_empty()).map(|r| IpamConfig {
                subnet: r.preferred_pool,
                ip_range: r.sub_pool,
                gateway: r.gateway.split('/').next().unwrap_or_default().to_owned(),
                auxiliary_addresses: r.aux_addresses.filter(|a| !a.is_empty()),
            }));
        }
        let options = network.generic.get("com.docker.network.generic").and_then(|v| v.as_object());
        let options: StringMap = options
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let short = network.id.get(..12).unwrap_or_default();
        let link = options.get("com.docker.network.bridge.name").cloned().unwrap_or_else(|| format!("br-{short}"));
        // A name with a slash is no link's.
        if network.network_type == "bridge" && !link.contains('/') && Path::new("/sys/class/net").join(&link).exists() {
            bridges.push(link);
        }
        all.push(NetworkCreateRequest {
            name: network.name,
            driver: network.network_type,
            enable_ipv4: network.ipv4,
            enable_ipv6: Some(network.ipv6),
            ipam: Some(Ipam { driver: network.ipam_type, options: network.ipam_options, config: Some(ranges) }),
            internal: network.internal,
            attachable: network.attachable,
            config_only: network.config_only,
            config_from: (!network.config_from.is_empty())
                .then_some(wharf_api_types::ConfigReference { network: network.config_from }),
            options: Some(options),
            labels: network.labels,
            ..NetworkCreateRequest::default()
        });
    }
    // Templates first: others are made from them.
    all.sort_by_key(|network| !network.config_only);
    Ok((all, bridges))
}

/// Reads one container; the inner error says why it stays where it is.
fn container(
    root: &Path,
    id: &str,
    snapshots: &Snapshots,
) -> Result<Result<FoundContainer, &'static str>, TakeoverError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct State {
        running: bool,
        exit_code: i64,
        error: String,
        #[serde(rename = "OOMKilled")]
        oom_killed: bool,
        started_at: Timestamp,
        finished_at: Timestamp,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Settings {
        networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Stored {
        #[serde(rename = "ID")]
        id: String,
        name: String,
        created: Timestamp,
        image: String,
        driver: String,
        config: ContainerConfig,
        #[serde(default)]
        state: State,
        #[serde(default)]
        managed: bool,
        #[serde(default)]
        network_settings: Option<Settings>,
        #[serde(default)]
        mount_points: Option<BTreeMap<String, MountPoint>>,
        #[serde(default)]
        has_been_started_before: bool,
        #[serde(default)]
        has_been_manually_stopped: bool,
    }
    let folder = root.join("containers").join(id);
    let path = folder.join("config.v2.json");
    if !path.exists() {
        return Ok(Err("it has no config.v2.json"));
    }
    let stored: Stored = json(&path)?;
    let host: HostConfig = json(&folder.join("hostconfig.json"))?;
    match () {
        () if stored.id != id => return Ok(Err("its files belong to another one")),
        () if stored.managed => return Ok(Err("it is a task of a swarm service")),
        () if host.auto_remove => return Ok(Err("it goes when it ends (--rm)")),
        // An engine that was killed leaves it so; its process has gone with the host's last boot, or goes on without an engine.
        () if stored.state.running => return Ok(Err("its record says that it runs: start and stop that engine once")),
        () => {}
    }
    let layer = match stored.driver.as_str() {
        "overlay2" => {
            let mount = root.join("image/overlay2/layerdb/mounts").join(id).join("mount-id");
            mount.exists().then(|| line(&mount)).transpose()?.map(|m| root.join("overlay2").join(m).join("diff"))
        }
        "overlayfs" => snapshots.layer(id)?,
        _ => return Ok(Err("its storage driver is neither overlay2 nor overlayfs")),
    };
    let state = stored.state;
    let by_hand = stored.has_been_manually_stopped;
    let restarts = match host.restart_policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !by_hand,
        "on-failure" => !by_hand && state.exit_code != 0,
        _ => false,
    };
    let settings = stored.network_settings.and_then(|s| s.networks).unwrap_or_default();
    let networks = settings.into_iter().map(|(name, settings)| {
        let s = settings.unwrap_or_default();
        // What was asked for; what the engine made of it is of no use to the next one.
        let EndpointSettings { ipam_config, links, aliases, mac_address, driver_opts, gw_priority, .. } = s;
        let asked = EndpointSettings {
            ipam_config,
            links,
            aliases,
            mac_address,
            driver_opts,
            gw_priority,
            ..Default::default()
        };
        (name, asked)
    });
    let volumes = stored.mount_points.unwrap_or_default().into_iter().filter(|(_, point)| point.r#type == "volume");
    Ok(Ok(FoundContainer {
        id: stored.id,
        name: stored.name.trim_start_matches('/').to_owned(),
        created: stored.created,
        image: stored.image,
        config: stored.config,
        networks: networks.collect(),
        last: LastRun {
            exit_code: state.exit_code,
            error: state.error,
            started_at: state.started_at,
            finished_at: state.finished_at,
            oom_killed: state.oom_killed,
            wanted: restarts && stored.has_been_started_before,
            ..LastRun::default()
        },
        host,
        volumes: volumes.collect(),
        layer: layer.filter(|path| path.is_dir()),
        folder,
    }))
}

/// The images of Docker's own store: those with a name, those that containers need, and those that no other was built upon.
fn images(root: &Path, store: &Path, used: &BTreeSet<&str>) -> Result<Vec<Image>, TakeoverError> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Repositories {
        repositories: BTreeMap<String, BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<Digest>,
    }
    let path = store.join("repositories.json");
    let repositories: Repositories = if path.exists() { json(&path)? } else { Repositories::default() };
    let mut tags = BTreeMap::<String, Vec<String>>::new();
    for (name, id) in repositories.repositories.into_values().flatten() {
        // A digest is of a manifest, which that store does not keep.
        let list = tags.entry(id).or_default();
        if !name.contains('@') {
            list.push(name);
        }
    }
    let contents = store.join("imagedb/content/sha256");
    let ids: Vec<String> =
        names(&contents)?.into_iter().filter(|n| Digest::parse(&format!("sha256:{n}")).is_ok()).collect();
    let mut parents = BTreeSet::new();
    for id in &ids {
        let parent = store.join("imagedb/metadata/sha256").join(id).join("parent");
        if parent.exists() {
            parents.insert(line(&parent)?);
        }
    }
    let chains = chains(store)?;
    let mut images = Vec::new();
    for hex in ids {
        let id = format!("sha256:{hex}");
        if !tags.contains_key(&id) && !used.contains(id.as_str()) && parents.contains(&id) {
            continue;
        }
        let config = contents.join(&hex);
        let Config { rootfs } = json(&config)?;
        let mut layers = Vec::new();
        let mut parent = String::new();
        for diff in rootfs.diff_ids {
            let known = chains.get(&(parent.clone(), diff.to_string()));
            let chain = known
                .ok_or_else(|| TakeoverError::Format { path: config.clone(), what: "a layer that is not there" })?;
            let place = store.join("layerdb/sha256").join(chain);
            let files = root.join("overlay2").join(line(&place.join("cache-id"))?).join("diff");
            layers.push(Layer { files, split: place.join("tar-split.json.gz") });
            parent = format!("sha256:{chain}");
        }
        let names = tags.remove(&id).unwrap_or_default();
        images.push(Image { id, names, source: Source::Files { config, layers } });
    }
    Ok(images)
}

/// The chains of layers, by what is below and the layer's own digest.
fn chains(store: &Path) -> Result<BTreeMap<(String, String), String>, TakeoverError> {
    let folder = store.join("layerdb/sha256");
    let mut chains = BTreeMap::new();
    for name in names(&folder)? {
        let (diff, parent) = (folder.join(&name).join("diff"), folder.join(&name).join("parent"));
        if diff.exists() {
            let parent = if parent.exists() { line(&parent)? } else { String::new() };
            chains.insert((parent, line(&diff)?), name);
        }
    }
    Ok(chains)
}

/// containerd's records, where Docker keeps images there.
struct Snapshots {
    metadata: Option<Bolt>,
    /// Folders of snapshots, by name.
    layers: BTreeMap<String, PathBuf>,
}

const CONTAINERD: &str = "containerd/daemon";

impl Snapshots {
    fn open(root: &Path) -> Result<Self, TakeoverError> {
        let folder = root.join(CONTAINERD);
        let metadata = Bolt::open(&folder.join("io.containerd.metadata.v1.bolt/meta.db"))?;
        let place = folder.join("io.containerd.snapshotter.v1.overlayfs");
        let mut layers = BTreeMap::new();
        if let Some(file) = Bolt::open(&place.join("metadata.db"))?
            && let Some(bucket) = file.bucket(&["v1", "snapshots"])?
        {
            for (name, item) in file.items(&bucket)? {
                let Item::Bucket(snapshot) = item else { continue };
                let id = file.items(&snapshot)?.into_iter().find_map(|(key, item)| match item {
                    Item::Value(value) if key == b"id" => unsigned(&value),
                    _ => None,
                });
                // moby/<number>/<key>
                let name = String::from_utf8_lossy(&name).into_owned();
                if let (Some(id), Some(key)) = (id, name.splitn(3, '/').nth(2).filter(|_| name.starts_with("moby/"))) {
                    layers.insert(key.to_owned(), place.join("snapshots").join(id.to_string()).join("fs"));
                }
            }
        }
        Ok(Self { metadata, layers })
    }

    fn layer(&self, container: &str) -> Result<Option<PathBuf>, TakeoverError> {
        Ok(self.layers.get(container).cloned())
    }

    fn images(&self, root: &Path) -> Result<Vec<Image>, TakeoverError> {
        let Some(file) = &self.metadata else { return Ok(Vec::new()) };
        let Some(bucket) = file.bucket(&["v1", "moby", "images"])? else { return Ok(Vec::new()) };
        let blobs = root.join(CONTAINERD).join("io.containerd.content.v1.content/blobs/sha256");
        let mut images = BTreeMap::<String, Image>::new();
        for (name, item) in file.items(&bucket)? {
            let Item::Bucket(image) = item else { continue };
            let target = file.items(&image)?.into_iter().find(|(key, _)| key == b"target");
            let Some((_, Item::Bucket(target))) = target else { continue };
            let (Some(digest), Some(media_type)) = (file.text(&target, "digest")?, file.text(&target, "mediatype")?)
            else {
                continue;
            };
            let Ok(parsed) = Digest::parse(&digest) else { continue };
            let path = blobs.join(parsed.hex());
            let size = fs::metadata(&path).map_err(io_failed("look at", &path))?.len();
            let source = Source::Blob { blobs: blobs.clone(), media_type, size };
            let image = images.entry(digest.clone()).or_insert(Image { id: digest, names: Vec::new(), source });
            let name = String::from_utf8_lossy(&name).into_owned();
            // What has no name stands under one of these.
            if !name.starts_with("moby-dangling@") {
                image.names.push(name);
            }
        }
        Ok(images.into_values().collect())
    }
}

/// Go's `binary.Uvarint`.
fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (n, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
