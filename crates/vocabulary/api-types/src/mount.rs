//! Mounts as asked for in a create request, and as shown afterwards.

use crate::StringMap;
use crate::go::{empty, nil_or_empty};

bodies! {
    /// One entry of `HostConfig.Mounts` (`docker run --mount`).
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe` or `cluster`.
        #[serde(skip_serializing_if = "empty")]
        r#type: String,
        #[serde(skip_serializing_if = "empty")]
        source: String,
        #[serde(skip_serializing_if = "empty")]
        target: String,
        #[serde(skip_serializing_if = "empty")]
        read_only: bool,
        #[serde(skip_serializing_if = "empty")]
        consistency: String,
        #[serde(skip_serializing_if = "empty")]
        bind_options: Option<BindOptions>,
        #[serde(skip_serializing_if = "empty")]
        volume_options: Option<VolumeOptions>,
        #[serde(skip_serializing_if = "empty")]
        image_options: Option<ImageOptions>,
        #[serde(skip_serializing_if = "empty")]
        tmpfs_options: Option<TmpfsOptions>,
        #[serde(skip_serializing_if = "empty")]
        cluster_options: Option<crate::go::Unit>,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        #[serde(skip_serializing_if = "empty")]
        propagation: String,
        #[serde(skip_serializing_if = "empty")]
        non_recursive: bool,
        #[serde(skip_serializing_if = "empty")]
        create_mountpoint: bool,
        #[serde(skip_serializing_if = "empty")]
        read_only_non_recursive: bool,
        #[serde(skip_serializing_if = "empty")]
        read_only_force_recursive: bool,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        #[serde(skip_serializing_if = "empty")]
        no_copy: bool,
        #[serde(skip_serializing_if = "nil_or_empty")]
        labels: Option<StringMap>,
        #[serde(skip_serializing_if = "empty")]
        subpath: String,
        #[serde(skip_serializing_if = "empty")]
        driver_config: Option<VolumeDriver>,
    }

    /// The driver that makes the volume if it does not exist.
    pub struct VolumeDriver {
        #[serde(skip_serializing_if = "empty")]
        name: String,
        #[serde(skip_serializing_if = "nil_or_empty")]
        options: Option<StringMap>,
    }

    /// Options of an image mount.
    pub struct ImageOptions {
        #[serde(skip_serializing_if = "empty")]
        subpath: String,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Bytes; 0 is the kernel's default, half of the memory.
        #[serde(skip_serializing_if = "empty")]
        size_bytes: i64,
        /// Mode bits as a decimal number.
        #[serde(skip_serializing_if = "empty")]
        mode: u32,
        /// Further options, each a key or a key with a value.
        #[serde(skip_serializing_if = "nil_or_empty")]
        options: Option<Vec<Vec<String>>>,
    }

    /// A mount of an existing container (`Mounts` of inspect and list).
    pub struct MountPoint {
        #[serde(skip_serializing_if = "empty")]
        r#type: String,
        /// The volume's name; empty for other types.
        #[serde(skip_serializing_if = "empty")]
        name: String,
        source: String,
        destination: String,
        #[serde(skip_serializing_if = "empty")]
        driver: String,
        mode: String,
        #[serde(rename = "RW")]
        rw: bool,
        propagation: String,
    }
}
