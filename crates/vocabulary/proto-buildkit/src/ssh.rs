//! Messages of `session/sshforward/ssh.proto` (BuildKit 0.29), package `moby.sshforward.v1`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, PartialEq, prost::Message)]
pub struct BytesMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckAgentRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckAgentResponse {}
