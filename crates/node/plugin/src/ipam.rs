//! Address management: `IpamDriver.*` (moby `libnetwork/docs/ipam.md`, `libnetwork/ipams/remote/api`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Plugin, PluginError};

/// What such a plugin says it implements.
pub const CAPABILITY: &str = "IpamDriver";

/// Options of a call.
pub type Options = BTreeMap<String, String>;

/// What a driver needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// The Ethernet address comes with a request for an address.
    #[serde(rename = "RequiresMACAddress")]
    pub needs_mac: bool,
    /// After the engine's start it asks again for what it had.
    #[serde(rename = "RequiresRequestReplay")]
    pub needs_replay: bool,
}

/// A pool that a driver gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// Its name in later calls.
    #[serde(rename = "PoolID")]
    pub id: String,
    /// The subnet.
    #[serde(rename = "Pool")]
    pub subnet: String,
    /// Whatever the driver tells of it; `com.docker.network.gateway` is its gateway.
    #[serde(rename = "Data")]
    pub data: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    local_default_address_space: String,
    address: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RequestPool<'a> {
    address_space: &'a str,
    pool: &'a str,
    sub_pool: &'a str,
    options: &'a Options,
    v6: bool,
}

#[derive(Serialize)]
struct OfPool<'a> {
    #[serde(rename = "PoolID")]
    pool: &'a str,
    #[serde(rename = "Address", skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(rename = "Options", skip_serializing_if = "Option::is_none")]
    options: Option<&'a Options>,
}

/// An address manager behind a plugin. Names of methods are Docker's.
#[derive(Clone, Copy, Debug)]
pub struct Driver<'a>(pub &'a Plugin);

impl Driver<'_> {
    fn ask<A: serde::de::DeserializeOwned>(&self, method: &str, request: &impl Serialize) -> Result<A, PluginError> {
        crate::ask(self.0, &format!("{CAPABILITY}.{method}"), request)
    }

    /// What it needs. A driver without this method needs nothing.
    pub fn capabilities(&self) -> Result<Capabilities, PluginError> {
        match self.ask("GetCapabilities", &serde_json::json!({})) {
            Err(PluginError::Refused { .. }) => Ok(Capabilities::default()),
            other => other,
        }
    }

    /// The name of the space from which local networks' pools are.
    pub fn address_space(&self) -> Result<String, PluginError> {
        let answer: Answer = self.ask("GetDefaultAddressSpaces", &serde_json::json!({}))?;
        Ok(answer.local_default_address_space)
    }

    /// Takes a pool: this one, or any if `pool` is empty.
    pub fn request_pool(
        &self,
        address_space: &str,
        pool: &str,
        sub_pool: &str,
        options: &Options,
        v6: bool,
    ) -> Result<Pool, PluginError> {
        self.ask("RequestPool", &RequestPool { address_space, pool, sub_pool, options, v6 })
    }

    /// Gives it back.
    pub fn release_pool(&self, pool: &str) -> Result<(), PluginError> {
        self.ask::<Answer>("ReleasePool", &OfPool { pool, address: None, options: None }).map(drop)
    }

    /// Takes an address: this one, or any if it is empty. Returns it with its prefix length.
    pub fn request_address(&self, pool: &str, address: &str, options: &Options) -> Result<String, PluginError> {
        let request = OfPool { pool, address: Some(address), options: Some(options) };
        Ok(self.ask::<Answer>("RequestAddress", &request)?.address)
    }

    /// Gives it back.
    pub fn release_address(&self, pool: &str, address: &str) -> Result<(), PluginError> {
        self.ask::<Answer>("ReleaseAddress", &OfPool { pool, address: Some(address), options: None }).map(drop)
    }
}
