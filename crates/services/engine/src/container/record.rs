//! What the store keeps of a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharf_api_types::{ContainerConfig, EndpointSettings, Health, HostConfig, OciDescriptor};
use wharf_metadata::{Record, Table};
use wharf_snapshot::Snapshot;
use wharf_types::{ContainerId, Timestamp};

use crate::create::mounts::Point;

/// A container, from create to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without slash.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// The image's id.
    pub image: String,
    /// The image's manifest, as inspect shows it.
    pub manifest: Option<OciDescriptor>,
    /// The configuration, merged with the image's.
    pub config: ContainerConfig,
    /// The host's part.
    pub host: HostConfig,
    /// Networks asked for, by name.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// The writable layer.
    pub snapshot: Snapshot,
    /// Mount points, with the names of their volumes.
    pub points: Vec<Point>,
    /// The last run, as far as the store knows it: newer facts are in the task folder of the same boot.
    pub last: LastRun,
}

impl Record for ContainerRecord {
    const TABLE: Table = Table::Containers;
    const VERSION: u32 = 1;
}

/// How a container's last run went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastRun {
    /// Exit code.
    pub exit_code: i64,
    /// Why it could not be started.
    pub error: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// Whether it ought to run: restart policies act on it when the daemon starts.
    pub wanted: bool,
    /// How often the restart policy has started it in a row.
    pub restarts: i64,
    /// How its health checks went.
    #[serde(default)]
    pub health: Option<Health>,
}

impl ContainerRecord {
    /// Command and arguments: the entrypoint, then the command.
    pub fn command(&self) -> Vec<String> {
        let words = |w: &Option<wharf_api_types::go::Words>| w.as_ref().map(|w| w.0.clone()).unwrap_or_default();
        let mut all = words(&self.config.entrypoint);
        // Docker drops an entrypoint that is one empty word: `--entrypoint ""` clears the image's.
        if all == [""] {
            all.clear();
        }
        all.extend(words(&self.config.cmd));
        all
    }

    /// The networks that it is on when it runs, the default bridge first: the network of its mode unless others were asked
    /// for. None where it shares another container's.
    pub fn network_names(&self) -> Vec<String> {
        let mode = match self.host.network_mode.as_str() {
            "default" => "bridge",
            mode if mode.starts_with("container:") => return Vec::new(),
            mode => mode,
        };
        if self.networks.is_empty() || matches!(mode, "host" | "none") {
            return vec![mode.to_owned()];
        }
        let mut names: Vec<String> = self.networks.keys().cloned().collect();
        if mode == "bridge" {
            names.sort_by_key(|name| name != "bridge");
        }
        names
    }

    /// Writes down the network that the container has by its mode, before others are added or taken away.
    pub fn materialise_networks(&mut self) {
        for name in self.network_names() {
            self.networks.entry(name).or_default();
        }
    }

    /// The priority of a network's gateway.
    pub fn gateway_priority(&self, network: &str) -> i64 {
        self.networks.get(network).map_or(0, |s| s.gw_priority)
    }

    /// The names under which others on a network find it, as inspect shows them.
    pub fn dns_names(&self, settings: &EndpointSettings) -> Vec<String> {
        let mut names = vec![self.name.clone()];
        let more = settings.aliases.iter().flatten().cloned();
        let own = [self.id.short().to_owned(), self.config.hostname.clone()];
        for name in more.chain(own) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Volumes that go with the container when it is removed with its volumes.
    pub fn anonymous_volumes(&self) -> Vec<String> {
        use crate::create::mounts::Source;
        let own = |point: &Point| match &point.source {
            Source::Volume { name, anonymous: true, .. } => Some(name.clone()),
            _ => None,
        };
        self.points.iter().filter_map(own).collect()
    }

    /// Images that it mounts, besides its own.
    pub fn mounted_images(&self) -> impl Iterator<Item = &str> {
        use crate::create::mounts::Source;
        self.points.iter().filter_map(|point| match &point.source {
            Source::Image { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }

    /// All volumes it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        use crate::create::mounts::Source;
        self.points.iter().filter_map(|point| match &point.source {
            Source::Volume { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}
