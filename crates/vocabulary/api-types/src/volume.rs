//! Volumes.

use crate::StringMap;
use crate::go::empty;

bodies! {
    /// A volume, as listed and inspected.
    pub struct Volume {
        /// RFC 3339 without a fraction.
        #[serde(skip_serializing_if = "empty")]
        created_at: String,
        driver: String,
        labels: Option<StringMap>,
        mountpoint: String,
        name: String,
        options: Option<StringMap>,
        scope: String,
        /// Whatever the volume's plugin tells of it.
        #[serde(skip_serializing_if = "empty")]
        status: Option<serde_json::Value>,
        /// Only in `system df`.
        #[serde(skip_serializing_if = "empty")]
        usage_data: Option<VolumeUsage>,
    }

    /// What a volume uses: -1 where it was not counted.
    pub struct VolumeUsage {
        ref_count: i64,
        size: i64,
    }

    /// The answer of `GET /volumes`.
    pub struct VolumeList {
        volumes: Vec<Volume>,
        warnings: Option<Vec<String>>,
    }

    /// The body of `POST /volumes/create`; an empty name asks for a random one.
    pub struct VolumeCreateRequest {
        name: String,
        driver: String,
        driver_opts: Option<StringMap>,
        labels: Option<StringMap>,
    }

    /// The answer of `POST /volumes/prune`.
    pub struct VolumePruneResponse {
        volumes_deleted: Vec<String>,
        space_reclaimed: u64,
    }
}
