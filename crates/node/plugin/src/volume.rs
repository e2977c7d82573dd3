//! Volume drivers: `VolumeDriver.*` (docs.docker.com/engine/extend/plugins_volume).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Plugin, PluginError};

/// What such a plugin says it implements.
pub const CAPABILITY: &str = "VolumeDriver";

/// A volume as its driver describes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Described {
    /// Name.
    pub name: String,
    /// Where it is mounted now; empty if it is not.
    pub mountpoint: Option<String>,
    /// When it was made, as the driver writes it.
    pub created_at: Option<String>,
    /// Whatever the driver tells of it.
    pub status: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Create<'a> {
    name: &'a str,
    opts: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Mount<'a> {
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    err: Option<String>,
    mountpoint: Option<String>,
    volume: Option<Described>,
    volumes: Option<Vec<Described>>,
    capabilities: Option<Scope>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Scope {
    scope: String,
}

/// A volume driver behind a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Driver<'a>(pub &'a Plugin);

impl Driver<'_> {
    fn call(&self, method: &str, request: &impl Serialize) -> Result<Answer, PluginError> {
        let method = format!("{CAPABILITY}.{method}");
        let answer: Answer = self.0.call(&method, request)?;
        match answer.err.as_deref().unwrap_or_default() {
            "" => Ok(answer),
            text => Err(PluginError::Refused { method, status: 200, text: text.to_owned() }),
        }
    }

    /// Makes a volume; one that exists stays as it is.
    pub fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<(), PluginError> {
        self.call("Create", &Create { name, opts: options }).map(drop)
    }

    /// Removes a volume.
    pub fn remove(&self, name: &str) -> Result<(), PluginError> {
        self.call("Remove", &Named { name }).map(drop)
    }

    /// Mounts a volume for one user, named by `id`; returns where it is on the host.
    pub fn mount(&self, name: &str, id: &str) -> Result<String, PluginError> {
        Ok(self.call("Mount", &Mount { name, id })?.mountpoint.unwrap_or_default())
    }

    /// Ends the mount of one user.
    pub fn unmount(&self, name: &str, id: &str) -> Result<(), PluginError> {
        self.call("Unmount", &Mount { name, id }).map(drop)
    }

    /// Tells of one volume.
    pub fn get(&self, name: &str) -> Result<Described, PluginError> {
        self.call("Get", &Named { name })?.volume.ok_or_else(|| PluginError::Refused {
            method: format!("{CAPABILITY}.Get"),
            status: 404,
            text: format!("no such volume: {name}"),
        })
    }

    /// Tells of all volumes.
    pub fn list(&self) -> Result<Vec<Described>, PluginError> {
        Ok(self.call("List", &serde_json::json!({}))?.volumes.unwrap_or_default())
    }

    /// `local` or `global`. A driver that does not say is local.
    pub fn scope(&self) -> &'static str {
        let scope = self.call("Capabilities", &serde_json::json!({})).ok().and_then(|a| a.capabilities);
        if scope.is_some_and(|s| s.scope.eq_ignore_ascii_case("global")) { "global" } else { "local" }
    }
}
