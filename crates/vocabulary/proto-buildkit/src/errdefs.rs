//! Messages of `solver/errdefs/errdefs.proto` (BuildKit 0.29), package `errdefs`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct Vertex {
    #[prost(string, tag = "1")]
    pub digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Source {
    #[prost(message, optional, tag = "1")]
    pub info: Option<crate::pb::SourceInfo>,
    #[prost(message, repeated, tag = "2")]
    pub ranges: Vec<crate::pb::Range>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Frontend {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub source: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FrontendCap {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CompatibilityFeature {
    #[prost(int64, tag = "1")]
    pub version: i64,
    #[prost(string, tag = "2")]
    pub feature: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Subrequest {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Solve {
    #[prost(string, repeated, tag = "1")]
    pub input_i_ds: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub mount_i_ds: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub op: Option<crate::pb::Op>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub description: std::collections::BTreeMap<String, String>,
    #[prost(oneof = "SolveSubject", tags = "4, 5")]
    pub subject: Option<SolveSubject>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FileAction {
    #[prost(int64, tag = "1")]
    pub index: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ContentCache {
    #[prost(int64, tag = "1")]
    pub index: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ProvenanceMaterialsIncomplete {
    #[prost(message, repeated, tag = "1")]
    pub incomplete: Vec<ProvenanceMaterialIncomplete>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ProvenanceMaterialIncomplete {
    #[prost(string, tag = "1")]
    pub op: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub method: String,
    #[prost(string, tag = "4")]
    pub uri: String,
    #[prost(string, tag = "5")]
    pub final_uri: String,
    #[prost(string, tag = "6")]
    pub reason: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum SolveSubject {
    #[prost(message, tag = "4")]
    File(FileAction),
    #[prost(message, tag = "5")]
    Cache(ContentCache),
}
