//! Registries for clients: pulling, pushing, logging in, searching, and what a registry says of an image.
//!
//! Progress is data ([`PullStep`], [`PushStep`]); who shows it makes lines of it. A caller that drops the receiver
//! cancels: what was fetched stays for the next time.

mod pull;
mod push;

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_distribution::document::{self, Content};
use wharf_distribution::{Client, Credentials, DistributionError, Found, Purpose};
use wharf_oci::image::{Descriptor, Platform};
use wharf_types::Reference;

pub use pull::{LayerStep, PullRequest, PullStep};
pub use push::{PushRequest, PushStep};

use crate::EngineError;
use crate::events::{Events, Subject};

/// The registries of one engine.
pub struct Registries {
    pub(crate) client: Client,
    pub(crate) store: Arc<wharf_image::Images>,
    pub(crate) events: Arc<Events>,
}

/// What a registry says of an image (`GET /distribution/{name}/json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// What the name means there.
    pub descriptor: Descriptor,
    /// The platforms that it is for; none where that is not known.
    pub platforms: Vec<Platform>,
}

impl Registries {
    /// The client, for who needs more than the use cases here (the builder).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Tells of a name, which stands in the id's place as with Docker.
    fn tell(&self, action: &str, name: &Reference) {
        let attributes = BTreeMap::from([("name".to_owned(), name.familiar_name().to_owned())]);
        self.events.publish(Subject::Image, action, name.familiar(), attributes);
    }

    /// Tries a login. Returns a token to keep in the password's place, if the registry gave one.
    ///
    /// # Errors
    /// [`EngineError::Distribution`].
    pub async fn log_in(&self, server: &str, credentials: Credentials) -> Result<String, EngineError> {
        Ok(self.client.log_in(&registry_of(server), credentials).await?)
    }

    /// Searches a registry.
    ///
    /// # Errors
    /// [`EngineError::Distribution`].
    pub async fn search(&self, term: &str, limit: u32, credentials: Credentials) -> Result<Vec<Found>, EngineError> {
        Ok(self.client.search(term, limit, credentials).await?)
    }

    /// The repository of a name, for who sends or fetches what is no image.
    ///
    /// # Errors
    /// [`EngineError::Distribution`].
    pub fn repository(
        &self,
        reference: &Reference,
        credentials: Credentials,
        purpose: Purpose,
    ) -> Result<Arc<wharf_distribution::Repository>, EngineError> {
        Ok(Arc::new(self.client.repository(reference, credentials, purpose)?))
    }

    /// Asks a registry what a name means.
    ///
    /// # Errors
    /// [`EngineError::Distribution`].
    pub async fn inspect(&self, reference: &Reference, credentials: Credentials) -> Result<Inspected, EngineError> {
        let repository = Arc::new(self.client.repository(reference, credentials, Purpose::Pull)?);
        let descriptor = match repository.resolve(reference).await {
            // The words of this call are the registry's own, not those of a pull.
            Err(DistributionError::NotFound(_)) => return Err(EngineError::ManifestUnknown),
            other => other?,
        };
        let found = repository.document(descriptor.digest.as_str(), &reference.familiar()).await?;
        let platforms = match found.content()? {
            Content::Index(index) => {
                let entries = index.manifests.into_iter().filter(|entry| !document::is_attestation(entry));
                entries.filter_map(|entry| entry.platform).collect()
            }
            Content::Manifest(_) => Vec::new(),
        };
        Ok(Inspected { descriptor, platforms })
    }
}

/// The registry that a login's server address means: Docker Hub has several names (moby `registry/auth.go`).
pub fn registry_of(server: &str) -> String {
    let bare = server.trim().trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" | "docker.io" => wharf_distribution::HUB.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_has_several_names() {
        for (server, registry) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("https://reg.example:5000/v2/", "reg.example:5000"),
            ("reg.example", "reg.example"),
        ] {
            assert_eq!(registry_of(server), registry, "{server}");
        }
    }
}
