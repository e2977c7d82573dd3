//! The body of `POST /containers/create` and its answer.

use std::collections::BTreeMap;

use crate::go::{Pair, Unit, Words, empty, nil_or_empty};
use crate::{EndpointSettings, Mount, StringMap};

/// Ports a container offers: `80/tcp`, `53/udp`.
pub type PortSet = BTreeMap<String, Unit>;
/// Host bindings by container port; a port without a binding has `null`.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

bodies! {
    /// The body of `POST /containers/create`: the configuration's fields with two more beside them.
    pub struct ContainerCreateRequest {
        #[serde(flatten)]
        config: ContainerConfig,
        host_config: Option<HostConfig>,
        networking_config: Option<NetworkingConfig>,
    }

    /// What a container runs; belongs to it wherever it is started.
    pub struct ContainerConfig {
        hostname: String,
        domainname: String,
        user: String,
        attach_stdin: bool,
        attach_stdout: bool,
        attach_stderr: bool,
        #[serde(skip_serializing_if = "nil_or_empty")]
        exposed_ports: Option<PortSet>,
        tty: bool,
        open_stdin: bool,
        stdin_once: bool,
        env: Option<Vec<String>>,
        cmd: Option<Words>,
        #[serde(skip_serializing_if = "empty")]
        healthcheck: Option<HealthConfig>,
        #[serde(skip_serializing_if = "empty")]
        args_escaped: bool,
        image: String,
        volumes: Option<BTreeMap<String, Unit>>,
        working_dir: String,
        entrypoint: Option<Words>,
        #[serde(skip_serializing_if = "empty")]
        network_disabled: bool,
        #[serde(skip_serializing_if = "empty")]
        mac_address: String,
        on_build: Option<Vec<String>>,
        labels: Option<StringMap>,
        #[serde(skip_serializing_if = "empty")]
        stop_signal: String,
        /// Seconds.
        #[serde(skip_serializing_if = "empty")]
        stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        shell: Option<Words>,
    }

    /// A health check; durations in nanoseconds, 0 inherits from the image.
    pub struct HealthConfig {
        /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`; empty inherits.
        #[serde(skip_serializing_if = "nil_or_empty")]
        test: Option<Vec<String>>,
        #[serde(skip_serializing_if = "empty")]
        interval: i64,
        #[serde(skip_serializing_if = "empty")]
        timeout: i64,
        #[serde(skip_serializing_if = "empty")]
        start_period: i64,
        #[serde(skip_serializing_if = "empty")]
        start_interval: i64,
        #[serde(skip_serializing_if = "empty")]
        retries: i64,
        /// Wharf's own: `kill`, `restart` or `stop` when the container becomes unhealthy; empty does nothing.
        #[serde(skip_serializing_if = "empty")]
        on_failure: String,
    }

    /// What ties a container to this host: resources, mounts, ports, policies.
    pub struct HostConfig {
        binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        container_id_file: String,
        log_config: LogConfig,
        network_mode: String,
        port_bindings: Option<PortMap>,
        restart_policy: RestartPolicy,
        auto_remove: bool,
        volume_driver: String,
        volumes_from: Option<Vec<String>>,
        /// Height and width.
        console_size: Pair,
        #[serde(skip_serializing_if = "nil_or_empty")]
        annotations: Option<StringMap>,
        cap_add: Option<Words>,
        cap_drop: Option<Words>,
        /// `host`, `private` or empty for the daemon's default.
        cgroupns_mode: String,
        dns: Option<Vec<String>>,
        dns_options: Option<Vec<String>>,
        dns_search: Option<Vec<String>>,
        extra_hosts: Option<Vec<String>>,
        group_add: Option<Vec<String>>,
        ipc_mode: String,
        cgroup: String,
        links: Option<Vec<String>>,
        oom_score_adj: i64,
        pid_mode: String,
        privileged: bool,
        publish_all_ports: bool,
        readonly_rootfs: bool,
        security_opt: Option<Vec<String>>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        storage_opt: Option<StringMap>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        tmpfs: Option<StringMap>,
        #[serde(rename = "UTSMode")]
        uts_mode: String,
        userns_mode: String,
        /// Bytes.
        shm_size: i64,
        #[serde(skip_serializing_if = "nil_or_empty")]
        sysctls: Option<StringMap>,
        #[serde(skip_serializing_if = "empty")]
        runtime: String,
        isolation: String,
        cpu_shares: i64,
        /// Bytes.
        memory: i64,
        /// Billionths of a processor.
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
        /// Microseconds.
        cpu_period: i64,
        /// Microseconds in each period; -1 lifts the limit.
        cpu_quota: i64,
        cpu_realtime_period: i64,
        cpu_realtime_runtime: i64,
        cpuset_cpus: String,
        cpuset_mems: String,
        devices: Option<Vec<DeviceMapping>>,
        device_cgroup_rules: Option<Vec<String>>,
        device_requests: Option<Vec<DeviceRequest>>,
        #[serde(skip_serializing_if = "empty")]
        kernel_memory: i64,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "empty")]
        kernel_memory_tcp: i64,
        memory_reservation: i64,
        /// Memory and swap together, bytes; -1 lifts the limit.
        memory_swap: i64,
        /// 0 to 100; absent or -1 is the kernel's default.
        memory_swappiness: Option<i64>,
        oom_kill_disable: Option<bool>,
        /// 0 or -1 lifts the limit; absent leaves it.
        pids_limit: Option<i64>,
        ulimits: Option<Vec<Ulimit>>,
        cpu_count: i64,
        cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        io_maximum_bandwidth: u64,
        #[serde(skip_serializing_if = "nil_or_empty")]
        mounts: Option<Vec<Mount>>,
        masked_paths: Option<Vec<String>>,
        readonly_paths: Option<Vec<String>>,
        #[serde(skip_serializing_if = "empty")]
        init: Option<bool>,
    }

    /// A log driver with its options.
    pub struct LogConfig {
        r#type: String,
        config: Option<StringMap>,
    }

    /// Where a container port appears on the host; empty port: any free one.
    pub struct PortBinding {
        host_ip: String,
        host_port: String,
    }

    /// When an ended container is started again: `no`, `always`, `unless-stopped`, `on-failure`.
    pub struct RestartPolicy {
        name: String,
        maximum_retry_count: i64,
    }

    /// Block input/output weight of one device.
    pub struct WeightDevice {
        path: String,
        weight: u16,
    }

    /// A block input/output limit of one device, per second.
    pub struct ThrottleDevice {
        path: String,
        rate: u64,
    }

    /// A device given to a container.
    pub struct DeviceMapping {
        path_on_host: String,
        path_in_container: String,
        cgroup_permissions: String,
    }

    /// A request for devices by capability (GPUs, CDI).
    pub struct DeviceRequest {
        driver: String,
        count: i64,
        #[serde(rename = "DeviceIDs")]
        device_ids: Option<Vec<String>>,
        capabilities: Option<Vec<Vec<String>>>,
        options: Option<StringMap>,
    }

    /// A resource limit (setrlimit).
    pub struct Ulimit {
        name: String,
        hard: i64,
        soft: i64,
    }

    /// Networks a container is connected to when it is created.
    pub struct NetworkingConfig {
        endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }

    /// The answer of `POST /containers/create`; `Warnings` prints `[]`, never `null`.
    pub struct ContainerCreateResponse {
        id: String,
        warnings: Vec<String>,
    }
}
