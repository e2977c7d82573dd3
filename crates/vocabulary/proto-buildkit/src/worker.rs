//! Messages of `api/types/worker.proto` (BuildKit 0.29), package `moby.buildkit.v1.types`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkerRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: std::collections::BTreeMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub platforms: Vec<crate::pb::Platform>,
    #[prost(message, repeated, tag = "4")]
    pub gc_policy: Vec<GCPolicy>,
    #[prost(message, optional, tag = "5")]
    pub buildkit_version: Option<BuildkitVersion>,
    #[prost(message, repeated, tag = "6")]
    pub cdi_devices: Vec<CDIDevice>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GCPolicy {
    #[prost(bool, tag = "1")]
    pub all: bool,
    #[prost(int64, tag = "2")]
    pub keep_duration: i64,
    #[prost(string, repeated, tag = "4")]
    pub filters: Vec<String>,
    #[prost(int64, tag = "3")]
    pub reserved_space: i64,
    #[prost(int64, tag = "5")]
    pub max_used_space: i64,
    #[prost(int64, tag = "6")]
    pub min_free_space: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BuildkitVersion {
    #[prost(string, tag = "1")]
    pub package: String,
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(string, tag = "3")]
    pub revision: String,
    #[prost(string, tag = "4")]
    pub dockerfile_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CDIDevice {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub auto_allow: bool,
    #[prost(btree_map = "string, string", tag = "3")]
    pub annotations: std::collections::BTreeMap<String, String>,
    #[prost(bool, tag = "4")]
    pub on_demand: bool,
}
