//! The engine itself: version, information, disk use, authentication.

use std::collections::BTreeMap;

use crate::go::{empty, nil_or_empty};
use crate::{ContainerSummary, ImageSummary, StringMap, Volume};

bodies! {
    /// The answer of `GET /version`.
    pub struct Version {
        platform: PlatformName,
        components: Vec<ComponentVersion>,
        version: String,
        api_version: String,
        #[serde(rename = "MinAPIVersion")]
        min_api_version: String,
        git_commit: String,
        go_version: String,
        os: String,
        arch: String,
        #[serde(skip_serializing_if = "empty")]
        kernel_version: String,
        #[serde(skip_serializing_if = "empty")]
        experimental: bool,
        #[serde(skip_serializing_if = "empty")]
        build_time: String,
    }

    /// The product's name.
    pub struct PlatformName {
        name: String,
    }

    /// One part of the engine.
    pub struct ComponentVersion {
        name: String,
        version: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        details: Option<StringMap>,
    }

    /// The answer of `GET /info`.
    pub struct Info {
        #[serde(rename = "ID")]
        id: String,
        containers: i64,
        containers_running: i64,
        containers_paused: i64,
        containers_stopped: i64,
        images: i64,
        driver: String,
        driver_status: Vec<[String; 2]>,
        /// Empty for the containerd store.
        #[serde(skip_serializing_if = "empty")]
        system_status: Option<Vec<[String; 2]>>,
        plugins: Plugins,
        memory_limit: bool,
        swap_limit: bool,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "empty")]
        kernel_memory_tcp: bool,
        cpu_cfs_period: bool,
        cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        cpu_set: bool,
        pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        ipv4_forwarding: bool,
        debug: bool,
        #[serde(rename = "NFd")]
        n_fd: i64,
        oom_kill_disable: bool,
        #[serde(rename = "NGoroutines")]
        n_goroutines: i64,
        system_time: String,
        logging_driver: String,
        cgroup_driver: String,
        #[serde(skip_serializing_if = "empty")]
        cgroup_version: String,
        #[serde(rename = "NEventsListener")]
        n_events_listener: i64,
        kernel_version: String,
        operating_system: String,
        #[serde(rename = "OSVersion")]
        os_version: String,
        #[serde(rename = "OSType")]
        os_type: String,
        architecture: String,
        index_server_address: String,
        registry_config: Option<RegistryConfig>,
        #[serde(rename = "NCPU")]
        n_cpu: i64,
        mem_total: i64,
        generic_resources: Option<Vec<serde_json::Value>>,
        docker_root_dir: String,
        http_proxy: String,
        https_proxy: String,
        no_proxy: String,
        name: String,
        labels: Vec<String>,
        experimental_build: bool,
        server_version: String,
        runtimes: BTreeMap<String, RuntimeInfo>,
        default_runtime: String,
        swarm: SwarmInfo,
        live_restore_enabled: bool,
        isolation: String,
        init_binary: String,
        containerd_commit: Commit,
        runc_commit: Commit,
        init_commit: Commit,
        security_options: Vec<String>,
        #[serde(skip_serializing_if = "empty")]
        product_license: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        default_address_pools: Option<Vec<AddressPool>>,
        #[serde(skip_serializing_if = "empty")]
        firewall_backend: Option<FirewallInfo>,
        #[serde(rename = "CDISpecDirs")]
        cdi_spec_dirs: Vec<String>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        discovered_devices: Option<Vec<serde_json::Value>>,
        #[serde(skip_serializing_if = "empty")]
        containerd: Option<ContainerdInfo>,
        warnings: Option<Vec<String>>,
    }

    /// Drivers by kind.
    pub struct Plugins {
        volume: Option<Vec<String>>,
        network: Option<Vec<String>>,
        authorization: Option<Vec<String>>,
        log: Option<Vec<String>>,
    }

    /// How registries are reached.
    pub struct RegistryConfig {
        index_configs: BTreeMap<String, IndexInfo>,
        #[serde(rename = "InsecureRegistryCIDRs")]
        insecure_registry_cidrs: Vec<String>,
        mirrors: Option<Vec<String>>,
    }

    /// One registry.
    pub struct IndexInfo {
        mirrors: Vec<String>,
        name: String,
        official: bool,
        secure: bool,
    }

    /// One OCI runtime; `status` holds what it says about itself.
    pub struct RuntimeInfo as "camelCase" {
        #[serde(skip_serializing_if = "empty")]
        path: String,
        #[serde(rename = "runtimeArgs", skip_serializing_if = "nil_or_empty")]
        runtime_args: Option<Vec<String>>,
        #[serde(rename = "type", skip_serializing_if = "empty")]
        runtime_type: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        status: Option<StringMap>,
    }

    /// The swarm part of the information; inactive when not in a swarm.
    pub struct SwarmInfo {
        #[serde(rename = "NodeID")]
        node_id: String,
        node_addr: String,
        local_node_state: String,
        control_available: bool,
        error: String,
        remote_managers: Option<Vec<serde_json::Value>>,
    }

    /// A source revision.
    pub struct Commit {
        #[serde(rename = "ID")]
        id: String,
    }

    /// A pool that networks take their subnets from.
    pub struct AddressPool {
        base: String,
        size: i64,
    }

    /// What applies the packet rules.
    pub struct FirewallInfo {
        driver: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        info: Option<Vec<[String; 2]>>,
    }

    /// The containerd in use; absent where the engine is its own.
    pub struct ContainerdInfo {
        #[serde(skip_serializing_if = "empty")]
        address: String,
        namespaces: ContainerdNamespaces,
    }

    /// Namespaces in containerd.
    pub struct ContainerdNamespaces {
        containers: String,
        plugins: String,
    }

    /// The answer of `GET /system/df`; parts that were not asked for are absent from the answer's types.
    pub struct DiskUsage {
        layers_size: i64,
        images: Option<Vec<ImageSummary>>,
        containers: Option<Vec<ContainerSummary>>,
        volumes: Option<Vec<Volume>>,
        build_cache: Option<Vec<BuildCache>>,
    }

    /// The answer of `POST /system/check` (Wharf extra).
    pub struct StoreCheck {
        /// Blobs that were read.
        blobs: i64,
        /// Their bytes.
        bytes: i64,
        /// Unpacked layers that were looked at.
        layers: i64,
        findings: Vec<StoreFinding>,
    }

    /// Something that is missing or damaged.
    pub struct StoreFinding {
        /// `blob` or `layer`.
        kind: String,
        /// The blob's digest or the layer's chain id.
        subject: String,
        /// `missing` or `damaged`.
        fault: String,
        /// Names of the images that need it.
        images: Vec<String>,
        /// Whether nothing is wrong with it any more.
        mended: bool,
        /// What was done, in words.
        outcome: String,
    }

    /// One record of the build cache.
    pub struct BuildCache {
        #[serde(rename = "ID")]
        id: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        parents: Option<Vec<String>>,
        r#type: String,
        description: String,
        in_use: bool,
        shared: bool,
        size: i64,
        created_at: wharf_types::Timestamp,
        last_used_at: Option<wharf_types::Timestamp>,
        usage_count: i64,
    }

    /// The body of `POST /auth`.
    pub struct AuthConfig as "lowercase" {
        username: String,
        password: String,
        auth: String,
        email: String,
        serveraddress: String,
        identitytoken: String,
        registrytoken: String,
    }

    /// The answer of `POST /auth`.
    pub struct AuthResponse {
        identity_token: String,
        status: String,
    }

    /// One result of `GET /images/search`.
    pub struct SearchResult as "snake_case" {
        star_count: i64,
        is_official: bool,
        name: String,
        is_automated: bool,
        description: String,
    }

    /// The answer of `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        descriptor: crate::OciDescriptor,
        platforms: Option<Vec<crate::OciPlatform>>,
    }
}
