//! Messages of `frontend/gateway/pb/gateway.proto` (BuildKit 0.29), package `moby.buildkit.v1.frontend`.

#![allow(missing_docs, clippy::large_enum_variant)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AttestationKind {
    InToto = 0,
    Bundle = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum InTotoSubjectKind {
    Own = 0,
    Raw = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ChecksumAlgo {
    Sha256 = 0,
    Sha384 = 1,
    Sha512 = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Result {
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub metadata: std::collections::BTreeMap<String, Vec<u8>>,
    #[prost(btree_map = "string, message", tag = "12")]
    pub attestations: std::collections::BTreeMap<String, Attestations>,
    #[prost(oneof = "ResultResult", tags = "1, 2, 3, 4")]
    pub result: Option<ResultResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RefMapDeprecated {
    #[prost(btree_map = "string, string", tag = "1")]
    pub refs: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Ref {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub def: Option<crate::pb::Definition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RefMap {
    #[prost(btree_map = "string, message", tag = "1")]
    pub refs: std::collections::BTreeMap<String, Ref>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Attestations {
    #[prost(message, repeated, tag = "1")]
    pub attestation: Vec<Attestation>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Attestation {
    #[prost(enumeration = "AttestationKind", tag = "1")]
    pub kind: i32,
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub metadata: std::collections::BTreeMap<String, Vec<u8>>,
    #[prost(message, optional, tag = "3")]
    pub r#ref: Option<Ref>,
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(string, tag = "5")]
    pub in_toto_predicate_type: String,
    #[prost(message, repeated, tag = "6")]
    pub in_toto_subjects: Vec<InTotoSubject>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InTotoSubject {
    #[prost(enumeration = "InTotoSubjectKind", tag = "1")]
    pub kind: i32,
    #[prost(string, repeated, tag = "2")]
    pub digest: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub result: Option<Result>,
    #[prost(message, optional, tag = "2")]
    pub error: Option<crate::Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReturnResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InputsRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InputsResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    pub definitions: std::collections::BTreeMap<String, crate::pb::Definition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveImageConfigRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<crate::pb::Platform>,
    #[prost(string, tag = "3")]
    pub resolve_mode: String,
    #[prost(string, tag = "4")]
    pub log_name: String,
    #[prost(int32, tag = "5")]
    pub resolver_type: i32,
    #[prost(string, tag = "6")]
    pub session_id: String,
    #[prost(string, tag = "7")]
    pub store_id: String,
    #[prost(message, repeated, tag = "8")]
    pub source_policies: Vec<crate::policy::Policy>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveImageConfigResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
    #[prost(string, tag = "3")]
    pub r#ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceMetaRequest {
    #[prost(message, optional, tag = "1")]
    pub source: Option<crate::pb::SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<crate::pb::Platform>,
    #[prost(string, tag = "3")]
    pub log_name: String,
    #[prost(string, tag = "4")]
    pub resolve_mode: String,
    #[prost(message, optional, tag = "5")]
    pub git: Option<ResolveSourceGitRequest>,
    #[prost(message, optional, tag = "6")]
    pub image: Option<ResolveSourceImageRequest>,
    #[prost(message, optional, tag = "7")]
    pub http: Option<ResolveSourceHTTPRequest>,
    #[prost(message, repeated, tag = "8")]
    pub source_policies: Vec<crate::policy::Policy>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceMetaResponse {
    #[prost(message, optional, tag = "1")]
    pub source: Option<crate::pb::SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub image: Option<ResolveSourceImageResponse>,
    #[prost(message, optional, tag = "3")]
    pub git: Option<ResolveSourceGitResponse>,
    #[prost(message, optional, tag = "4")]
    pub http: Option<ResolveSourceHTTPResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceImageRequest {
    #[prost(bool, tag = "1")]
    pub no_config: bool,
    #[prost(bool, tag = "2")]
    pub attestation_chain: bool,
    #[prost(string, repeated, tag = "3")]
    pub resolve_attestations: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AttestationChain {
    #[prost(string, tag = "1")]
    pub root: String,
    #[prost(string, tag = "2")]
    pub image_manifest: String,
    #[prost(string, tag = "3")]
    pub attestation_manifest: String,
    #[prost(string, repeated, tag = "4")]
    pub signature_manifests: Vec<String>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub blobs: std::collections::BTreeMap<String, Blob>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceImageResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub attestation_chain: Option<AttestationChain>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceGitRequest {
    #[prost(bool, tag = "1")]
    pub return_object: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceGitResponse {
    #[prost(string, tag = "1")]
    pub checksum: String,
    #[prost(string, tag = "2")]
    pub r#ref: String,
    #[prost(string, tag = "3")]
    pub commit_checksum: String,
    #[prost(bytes = "vec", tag = "4")]
    pub commit_object: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub tag_object: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceHTTPResponse {
    #[prost(string, tag = "1")]
    pub checksum: String,
    #[prost(string, tag = "2")]
    pub filename: String,
    #[prost(message, optional, tag = "3")]
    pub last_modified: Option<crate::Timestamp>,
    #[prost(message, optional, tag = "4")]
    pub checksum_response: Option<ChecksumResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolveSourceHTTPRequest {
    #[prost(message, optional, tag = "1")]
    pub checksum_request: Option<ChecksumRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChecksumRequest {
    #[prost(enumeration = "ChecksumAlgo", tag = "1")]
    pub algo: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub suffix: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChecksumResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub suffix: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SolveRequest {
    #[prost(message, optional, tag = "1")]
    pub definition: Option<crate::pb::Definition>,
    #[prost(string, tag = "2")]
    pub frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub frontend_opt: std::collections::BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    pub allow_result_return: bool,
    #[prost(bool, tag = "6")]
    pub allow_result_array_ref: bool,
    #[prost(bool, tag = "10")]
    pub r#final: bool,
    #[prost(bytes = "vec", tag = "11")]
    pub exporter_attr: Vec<u8>,
    #[prost(message, repeated, tag = "12")]
    pub cache_imports: Vec<CacheOptionsEntry>,
    #[prost(btree_map = "string, message", tag = "13")]
    pub frontend_inputs: std::collections::BTreeMap<String, crate::pb::Definition>,
    #[prost(bool, tag = "14")]
    pub evaluate: bool,
    #[prost(message, repeated, tag = "15")]
    pub source_policies: Vec<crate::policy::Policy>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CacheOptionsEntry {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SolveResponse {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(message, optional, tag = "3")]
    pub result: Option<Result>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadFileRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub file_path: String,
    #[prost(message, optional, tag = "3")]
    pub range: Option<FileRange>,
    #[prost(int32, tag = "4")]
    pub mount_index: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FileRange {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(int64, tag = "2")]
    pub length: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadFileResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadDirRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub dir_path: String,
    #[prost(string, tag = "3")]
    pub include_pattern: String,
    #[prost(int32, tag = "4")]
    pub mount_index: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadDirResponse {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<crate::fsutil::Stat>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatFileRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub path: String,
    #[prost(int32, tag = "3")]
    pub mount_index: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatFileResponse {
    #[prost(message, optional, tag = "1")]
    pub stat: Option<crate::fsutil::Stat>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EvaluateRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EvaluateResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PingRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub frontend_api_caps: Vec<crate::caps::APICap>,
    #[prost(message, repeated, tag = "2")]
    pub llb_caps: Vec<crate::caps::APICap>,
    #[prost(message, repeated, tag = "3")]
    pub workers: Vec<crate::worker::WorkerRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WarnRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub level: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub short: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub detail: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    pub url: String,
    #[prost(message, optional, tag = "6")]
    pub info: Option<crate::pb::SourceInfo>,
    #[prost(message, repeated, tag = "7")]
    pub ranges: Vec<crate::pb::Range>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WarnResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NewContainerRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<crate::pb::Mount>,
    #[prost(enumeration = "crate::pb::NetMode", tag = "3")]
    pub network: i32,
    #[prost(message, optional, tag = "4")]
    pub platform: Option<crate::pb::Platform>,
    #[prost(message, optional, tag = "5")]
    pub constraints: Option<crate::pb::WorkerConstraints>,
    #[prost(message, repeated, tag = "6")]
    pub extra_hosts: Vec<crate::pb::HostIP>,
    #[prost(string, tag = "7")]
    pub hostname: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct NewContainerResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReleaseContainerRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ReleaseContainerResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecMessage {
    #[prost(string, tag = "1")]
    pub process_id: String,
    #[prost(oneof = "ExecMessageInput", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub input: Option<ExecMessageInput>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InitMessage {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, optional, tag = "2")]
    pub meta: Option<crate::pb::Meta>,
    #[prost(uint32, repeated, tag = "3")]
    pub fds: Vec<u32>,
    #[prost(bool, tag = "4")]
    pub tty: bool,
    #[prost(enumeration = "crate::pb::SecurityMode", tag = "5")]
    pub security: i32,
    #[prost(message, repeated, tag = "6")]
    pub secretenv: Vec<crate::pb::SecretEnv>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExitMessage {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(message, optional, tag = "2")]
    pub error: Option<crate::Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StartedMessage {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DoneMessage {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FdMessage {
    #[prost(uint32, tag = "1")]
    pub fd: u32,
    #[prost(bool, tag = "2")]
    pub eof: bool,
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResizeMessage {
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    #[prost(uint32, tag = "2")]
    pub cols: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SignalMessage {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Blob {
    #[prost(message, optional, tag = "1")]
    pub descriptor: Option<Descriptor>,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Descriptor {
    #[prost(string, tag = "1")]
    pub media_type: String,
    #[prost(string, tag = "2")]
    pub digest: String,
    #[prost(int64, tag = "3")]
    pub size: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ResultResult {
    #[prost(string, tag = "1")]
    RefDeprecated(String),
    #[prost(message, tag = "2")]
    RefsDeprecated(RefMapDeprecated),
    #[prost(message, tag = "3")]
    Ref(Ref),
    #[prost(message, tag = "4")]
    Refs(RefMap),
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ExecMessageInput {
    #[prost(message, tag = "2")]
    Init(InitMessage),
    #[prost(message, tag = "3")]
    File(FdMessage),
    #[prost(message, tag = "4")]
    Resize(ResizeMessage),
    #[prost(message, tag = "5")]
    Started(StartedMessage),
    #[prost(message, tag = "6")]
    Exit(ExitMessage),
    #[prost(message, tag = "7")]
    Done(DoneMessage),
    #[prost(message, tag = "8")]
    Signal(SignalMessage),
}
