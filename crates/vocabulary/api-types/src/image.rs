//! Images in lists and one by one, and what changes to them answer.

use std::collections::BTreeMap;

use wharf_types::Timestamp;

use crate::go::{Unit, Words, empty, nil_or_empty};
use crate::{DriverData, HealthConfig, StringMap};

bodies! {
    /// An OCI content descriptor.
    pub struct OciDescriptor as "camelCase" {
        media_type: String,
        digest: String,
        size: i64,
        #[serde(skip_serializing_if = "nil_or_empty")]
        urls: Option<Vec<String>>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        annotations: Option<StringMap>,
        /// Base64.
        #[serde(skip_serializing_if = "empty")]
        data: String,
        #[serde(skip_serializing_if = "empty")]
        platform: Option<OciPlatform>,
        #[serde(skip_serializing_if = "empty")]
        artifact_type: String,
    }

    /// An OCI platform.
    pub struct OciPlatform as "camelCase" {
        architecture: String,
        os: String,
        #[serde(rename = "os.version", skip_serializing_if = "empty")]
        os_version: String,
        #[serde(rename = "os.features", skip_serializing_if = "nil_or_empty")]
        os_features: Option<Vec<String>>,
        #[serde(skip_serializing_if = "empty")]
        variant: String,
    }

    /// One row of `GET /images/json`.
    pub struct ImageSummary {
        /// -1 where it was not counted.
        containers: i64,
        /// Seconds since the epoch.
        created: i64,
        id: String,
        labels: Option<StringMap>,
        parent_id: String,
        #[serde(skip_serializing_if = "empty")]
        descriptor: Option<OciDescriptor>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        manifests: Option<Vec<ImageManifestSummary>>,
        repo_digests: Vec<String>,
        repo_tags: Vec<String>,
        /// -1 where it was not asked for.
        shared_size: i64,
        size: i64,
    }

    /// One manifest of an image, possibly for another platform.
    pub struct ImageManifestSummary {
        #[serde(rename = "ID")]
        id: String,
        descriptor: OciDescriptor,
        available: bool,
        size: ManifestSize,
        /// `image`, `attestation` or `unknown`.
        kind: String,
        #[serde(skip_serializing_if = "empty")]
        image_data: Option<ManifestImageData>,
        #[serde(skip_serializing_if = "empty")]
        attestation_data: Option<ManifestAttestationData>,
    }

    /// Bytes of a manifest's content, and with what was unpacked.
    pub struct ManifestSize {
        content: i64,
        total: i64,
    }

    /// The image part of a manifest.
    pub struct ManifestImageData {
        platform: OciPlatform,
        size: UnpackedSize,
        /// Ids of containers that use it.
        containers: Option<Vec<String>>,
    }

    /// Bytes of the unpacked layers.
    pub struct UnpackedSize {
        unpacked: i64,
    }

    /// The attestation part of a manifest: the digest it is about.
    pub struct ManifestAttestationData {
        r#for: String,
    }

    /// The answer of `GET /images/{name}/json`.
    pub struct ImageInspect {
        id: String,
        repo_tags: Vec<String>,
        repo_digests: Vec<String>,
        parent: String,
        comment: String,
        #[serde(skip_serializing_if = "empty")]
        created: Option<Timestamp>,
        docker_version: String,
        author: String,
        architecture: String,
        #[serde(skip_serializing_if = "empty")]
        variant: String,
        os: String,
        #[serde(skip_serializing_if = "empty")]
        os_version: String,
        size: i64,
        graph_driver: DriverData,
        #[serde(rename = "RootFS")]
        root_fs: RootFs,
        metadata: ImageMetadata,
        #[serde(skip_serializing_if = "empty")]
        descriptor: Option<OciDescriptor>,
        /// Only with `manifests=1`.
        #[serde(skip_serializing_if = "nil_or_empty")]
        manifests: Option<Vec<ImageManifestSummary>>,
        config: Option<ImageConfig>,
    }

    /// The layers of an image by diff id.
    pub struct RootFs {
        r#type: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        layers: Option<Vec<String>>,
    }

    /// What this engine knows about an image beyond its content.
    pub struct ImageMetadata {
        last_tag_time: Timestamp,
    }

    /// The configuration a container inherits from its image.
    pub struct ImageConfig {
        #[serde(skip_serializing_if = "empty")]
        args_escaped: bool,
        cmd: Option<Words>,
        entrypoint: Option<Words>,
        env: Option<Vec<String>>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        exposed_ports: Option<BTreeMap<String, Unit>>,
        #[serde(skip_serializing_if = "empty")]
        healthcheck: Option<HealthConfig>,
        labels: Option<StringMap>,
        on_build: Option<Vec<String>>,
        #[serde(skip_serializing_if = "nil_or_empty")]
        shell: Option<Words>,
        #[serde(skip_serializing_if = "empty")]
        stop_signal: String,
        user: String,
        volumes: Option<BTreeMap<String, Unit>>,
        working_dir: String,
    }

    /// One step of `GET /images/{name}/history`, newest first.
    pub struct ImageHistoryItem {
        comment: String,
        created: i64,
        created_by: String,
        /// `<missing>` for steps without an image of their own.
        id: String,
        size: i64,
        tags: Option<Vec<String>>,
    }

    /// One effect of removing an image: exactly one of the two is set.
    pub struct ImageDeleteItem {
        #[serde(skip_serializing_if = "empty")]
        deleted: String,
        #[serde(skip_serializing_if = "empty")]
        untagged: String,
    }

    /// The answer of `POST /images/prune`.
    pub struct ImagePruneResponse {
        images_deleted: Option<Vec<ImageDeleteItem>>,
        space_reclaimed: u64,
    }

    /// One line of a progress stream (import, load, pull, push, build).
    pub struct Progress as "camelCase" {
        #[serde(skip_serializing_if = "empty")]
        stream: String,
        #[serde(skip_serializing_if = "empty")]
        status: String,
        #[serde(skip_serializing_if = "empty")]
        progress_detail: Option<ProgressDetail>,
        #[serde(skip_serializing_if = "empty")]
        progress: String,
        #[serde(skip_serializing_if = "empty")]
        id: String,
        #[serde(skip_serializing_if = "empty")]
        error_detail: Option<ErrorDetail>,
        #[serde(skip_serializing_if = "empty")]
        error: String,
        #[serde(skip_serializing_if = "empty")]
        aux: Option<serde_json::Value>,
    }

    /// Bytes done and in all.
    pub struct ProgressDetail as "camelCase" {
        #[serde(skip_serializing_if = "empty")]
        current: i64,
        #[serde(skip_serializing_if = "empty")]
        total: i64,
        /// Numbers are not to be shown.
        #[serde(rename = "hidecounts", skip_serializing_if = "empty")]
        hide_counts: bool,
        /// What is counted, where it is not bytes.
        #[serde(skip_serializing_if = "empty")]
        units: String,
    }

    /// An error inside a progress stream.
    pub struct ErrorDetail as "camelCase" {
        #[serde(skip_serializing_if = "empty")]
        code: i64,
        message: String,
    }
}
