//! Authorisation plugins behind the server's [`Authorizer`]: each in turn, all have to allow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use wharf_api_server::ApiError;
use wharf_api_server::authorize::{Asked, Authorizer, Given, denied, undecided};
use wharf_api_server::backend::Reply;
use wharf_error::{Chain, Kind};
use wharf_plugin::Plugins;

/// What such a plugin says it implements.
pub const CAPABILITY: &str = "authz";

/// The plugins of `--authorization-plugin`, in order; a reload changes them.
pub struct Authorization {
    plugins: Arc<Plugins>,
    names: Mutex<Arc<[String]>>,
}

/// The body of `AuthZPlugin.AuthZReq` and `AuthZPlugin.AuthZRes` (moby `pkg/authorization`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(rename = "UserAuthNMethod", skip_serializing_if = "str::is_empty")]
    user_method: &'a str,
    request_method: &'a str,
    #[serde(rename = "RequestURI")]
    request_uri: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    request_body: String,
    request_headers: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status_code: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    response_body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_headers: Option<&'a BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Decision {
    allow: bool,
    msg: String,
    err: String,
}

impl Authorization {
    /// Takes the names; plugins are looked for when they are asked.
    pub fn new(plugins: Arc<Plugins>, names: &[String]) -> Self {
        Self { plugins, names: Mutex::new(names.into()) }
    }

    /// Takes other names.
    pub fn replace(&self, names: &[String]) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names.into();
    }

    fn names(&self) -> Arc<[String]> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask<'a>(&'a self, method: &'static str, asked: &'a Asked, given: Option<&'a Given>) -> Reply<'a, ()> {
        let names = self.names();
        let question = Question {
            user: &asked.user,
            user_method: if asked.user.is_empty() { "" } else { "TLS" },
            request_method: &asked.method,
            request_uri: &asked.uri,
            request_body: STANDARD.encode(&asked.body),
            request_headers: &asked.headers,
            response_status_code: given.map(|g| g.status),
            response_body: given.map(|g| STANDARD.encode(&g.body)).unwrap_or_default(),
            response_headers: given.map(|g| &g.headers),
        };
        let question = serde_json::to_value(&question);
        let plugins = self.plugins.clone();
        Box::pin(async move {
            let question = question.map_err(|e| ApiError::new(Kind::System, e.to_string()))?;
            let asking = tokio::task::spawn_blocking(move || {
                names.iter().try_for_each(|name| {
                    let answer = plugins.get(name, CAPABILITY).and_then(|p| p.call::<_, Decision>(method, &question));
                    match answer {
                        Err(e) => Err(undecided(name, &Chain(&e).to_string())),
                        Ok(decision) if !decision.err.is_empty() => Err(undecided(name, &decision.err)),
                        Ok(decision) if !decision.allow => Err(denied(name, &decision.msg)),
                        Ok(_) => Ok(()),
                    }
                })
            });
            asking.await.unwrap_or_else(|e| Err(ApiError::new(Kind::System, e.to_string())))
        })
    }
}

impl Authorizer for Authorization {
    fn is_active(&self) -> bool {
        !self.names().is_empty()
    }

    fn request<'a>(&'a self, asked: &'a Asked) -> Reply<'a, ()> {
        self.ask("AuthZPlugin.AuthZReq", asked, None)
    }

    fn response<'a>(&'a self, asked: &'a Asked, given: &'a Given) -> Reply<'a, ()> {
        self.ask("AuthZPlugin.AuthZRes", asked, Some(given))
    }
}
