//! Messages of `session/filesync/filesync.proto` (BuildKit 0.29), package `moby.filesync.v1`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct BytesMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}
