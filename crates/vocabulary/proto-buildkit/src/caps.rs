//! Messages of `util/apicaps/pb/caps.proto` (BuildKit 0.29), package `moby.buildkit.v1.apicaps`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct APICap {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub enabled: bool,
    #[prost(bool, tag = "3")]
    pub deprecated: bool,
    #[prost(string, tag = "4")]
    pub disabled_reason: String,
    #[prost(string, tag = "5")]
    pub disabled_reason_msg: String,
    #[prost(string, tag = "6")]
    pub disabled_alternative: String,
}
