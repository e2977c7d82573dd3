//! Messages of `sourcepolicy/pb/policy.proto` (BuildKit 0.29), package `moby.buildkit.v1.sourcepolicy`.

#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PolicyAction {
    Allow = 0,
    Deny = 1,
    Convert = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AttrMatch {
    Equal = 0,
    Notequal = 1,
    Matches = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MatchType {
    Wildcard = 0,
    Exact = 1,
    Regex = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Rule {
    #[prost(enumeration = "PolicyAction", tag = "1")]
    pub action: i32,
    #[prost(message, optional, tag = "2")]
    pub selector: Option<Selector>,
    #[prost(message, optional, tag = "3")]
    pub updates: Option<Update>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Selector {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(enumeration = "MatchType", tag = "2")]
    pub match_type: i32,
    #[prost(message, repeated, tag = "3")]
    pub constraints: Vec<AttrConstraint>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct AttrConstraint {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(enumeration = "AttrMatch", tag = "3")]
    pub condition: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Policy {
    #[prost(int64, tag = "1")]
    pub version: i64,
    #[prost(message, repeated, tag = "2")]
    pub rules: Vec<Rule>,
}
