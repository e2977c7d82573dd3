//! Containers in lists, and the small bodies of the calls on one container.

use std::collections::BTreeMap;

use crate::go::{empty, nil_or_empty};
use crate::{
    DeviceMapping, DeviceRequest, EndpointSettings, MountPoint, OciDescriptor, RestartPolicy, StringMap,
    ThrottleDevice, Ulimit, WeightDevice,
};

bodies! {
    /// One row of `GET /containers/json`.
    pub struct ContainerSummary {
        id: String,
        /// With leading slashes.
        names: Vec<String>,
        image: String,
        #[serde(rename = "ImageID")]
        image_id: String,
        /// API 1.48 on; `system df` leaves it out.
        #[serde(skip_serializing_if = "empty")]
        image_manifest_descriptor: Option<OciDescriptor>,
        command: String,
        /// Seconds since the epoch.
        created: i64,
        ports: Vec<Port>,
        /// Only with `size=1`.
        #[serde(skip_serializing_if = "empty")]
        size_rw: i64,
        #[serde(skip_serializing_if = "empty")]
        size_root_fs: i64,
        labels: StringMap,
        state: String,
        /// For people: `Up 2 hours (healthy)`.
        status: String,
        host_config: SummaryHostConfig,
        network_settings: SummaryNetworkSettings,
        mounts: Vec<MountPoint>,
    }

    /// A published or offered port of a container.
    pub struct Port {
        #[serde(rename = "IP", skip_serializing_if = "empty")]
        ip: String,
        private_port: u16,
        #[serde(skip_serializing_if = "empty")]
        public_port: u16,
        r#type: String,
    }

    /// The part of the host configuration that lists show.
    pub struct SummaryHostConfig {
        #[serde(skip_serializing_if = "empty")]
        network_mode: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        annotations: Option<StringMap>,
    }

    /// The networks that lists show.
    pub struct SummaryNetworkSettings {
        networks: BTreeMap<String, EndpointSettings>,
    }

    /// The answer of `POST /containers/{id}/wait`.
    pub struct ContainerWaitResponse {
        status_code: i64,
        #[serde(skip_serializing_if = "empty")]
        error: Option<WaitError>,
    }

    /// Why a wait ended without an exit code of its own.
    pub struct WaitError {
        message: String,
    }

    /// The answer of `GET /containers/{id}/top`.
    pub struct ContainerTopResponse {
        processes: Vec<Vec<String>>,
        titles: Vec<String>,
    }

    /// One changed path: kind 0 modified, 1 added, 2 deleted.
    pub struct FilesystemChange {
        path: String,
        kind: u32,
    }

    /// The body of `POST /containers/{id}/update`: limits, where 0 or absent leaves a value alone.
    pub struct ContainerUpdateRequest {
        cpu_shares: i64,
        memory: i64,
        nano_cpus: i64,
        cgroup_parent: String,
        blkio_weight: u16,
        blkio_weight_device: Option<Vec<WeightDevice>>,
        blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        cpu_period: i64,
        cpu_quota: i64,
        cpu_realtime_period: i64,
        cpu_realtime_runtime: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        devices: Option<Vec<DeviceMapping>>,
        device_cgroup_rules: Option<Vec<String>>,
        device_requests: Option<Vec<DeviceRequest>>,
        kernel_memory: i64,
        #[serde(rename = "KernelMemoryTCP")]
        kernel_memory_tcp: i64,
        memory_reservation: i64,
        memory_swap: i64,
        memory_swappiness: Option<i64>,
        oom_kill_disable: Option<bool>,
        pids_limit: Option<i64>,
        ulimits: Option<Vec<Ulimit>>,
        restart_policy: RestartPolicy,
    }

    /// The answer of `POST /containers/{id}/update`.
    pub struct ContainerUpdateResponse {
        warnings: Option<Vec<String>>,
    }

    /// The answer of `POST /containers/prune`.
    pub struct ContainerPruneResponse {
        containers_deleted: Option<Vec<String>>,
        space_reclaimed: u64,
    }

    /// What `HEAD` and `GET /containers/{id}/archive` say about the path, in header `X-Docker-Container-Path-Stat`
    /// as base64 of this JSON.
    pub struct PathStat as "camelCase" {
        name: String,
        size: i64,
        /// Go's `os.FileMode` bits.
        mode: u32,
        mtime: wharf_types::Timestamp,
        link_target: String,
    }
}
