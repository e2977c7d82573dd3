//! The answer of `GET /containers/{id}/json`.

use std::collections::BTreeMap;

use wharf_types::Timestamp;

use crate::go::empty;
use crate::{ContainerConfig, EndpointSettings, HostConfig, MountPoint, OciDescriptor, PortMap, StringMap};

bodies! {
    /// Everything about one container.
    pub struct ContainerInspect {
        id: String,
        created: Timestamp,
        path: String,
        args: Vec<String>,
        state: ContainerState,
        image: String,
        resolv_conf_path: String,
        hostname_path: String,
        hosts_path: String,
        log_path: String,
        /// With a leading slash.
        name: String,
        restart_count: i64,
        driver: String,
        platform: String,
        mount_label: String,
        process_label: String,
        app_armor_profile: String,
        /// `null` when there is none.
        #[serde(rename = "ExecIDs")]
        exec_ids: Option<Vec<String>>,
        host_config: HostConfig,
        graph_driver: DriverData,
        /// Only with `size=1`.
        #[serde(skip_serializing_if = "empty")]
        size_rw: Option<i64>,
        #[serde(skip_serializing_if = "empty")]
        size_root_fs: Option<i64>,
        mounts: Vec<MountPoint>,
        config: ContainerConfig,
        network_settings: NetworkSettings,
        /// API 1.48 on.
        #[serde(skip_serializing_if = "empty")]
        image_manifest_descriptor: Option<OciDescriptor>,
    }

    /// The state of a container. `Status` is one of created, running, paused, restarting, removing, exited, dead.
    pub struct ContainerState {
        status: String,
        running: bool,
        paused: bool,
        restarting: bool,
        #[serde(rename = "OOMKilled")]
        oom_killed: bool,
        dead: bool,
        pid: i64,
        exit_code: i64,
        error: String,
        started_at: Timestamp,
        finished_at: Timestamp,
        #[serde(skip_serializing_if = "empty")]
        health: Option<Health>,
    }

    /// The result of health checks: starting, healthy or unhealthy.
    pub struct Health {
        status: String,
        failing_streak: i64,
        log: Vec<HealthcheckResult>,
    }

    /// One run of a health check.
    pub struct HealthcheckResult {
        start: Timestamp,
        end: Timestamp,
        exit_code: i64,
        output: String,
    }

    /// The snapshotter and its data; with the containerd store `Data` is `null`.
    pub struct DriverData {
        data: Option<StringMap>,
        name: String,
    }

    /// A container's network state. The fields between `Bridge` and `Networks` repeat the default bridge's endpoint.
    pub struct NetworkSettings {
        bridge: String,
        #[serde(rename = "SandboxID")]
        sandbox_id: String,
        sandbox_key: String,
        ports: PortMap,
        hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses")]
        secondary_ip_addresses: Option<Vec<Address>>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        secondary_ipv6_addresses: Option<Vec<Address>>,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")]
        ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        ipv6_gateway: String,
        mac_address: String,
        networks: BTreeMap<String, EndpointSettings>,
    }

    /// An address with its prefix length.
    pub struct Address {
        addr: String,
        prefix_len: i64,
    }
}
