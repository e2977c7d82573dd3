//! Messages of `session/exporter/exporter.proto` (BuildKit 0.29), package `moby.exporter.v1`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct FindExportersRequest {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub metadata: std::collections::BTreeMap<String, Vec<u8>>,
    #[prost(string, repeated, tag = "2")]
    pub refs: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FindExportersResponse {
    #[prost(message, repeated, tag = "1")]
    pub exporters: Vec<ExporterRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExporterRequest {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FinalizeExportRequest {
    #[prost(btree_map = "string, string", tag = "1")]
    pub exporter_response: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FinalizeExportResponse {}
