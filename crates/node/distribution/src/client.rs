//! The client of all registries of one daemon.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wharf_types::Reference;

use crate::auth::{Credentials, encoded};
use crate::endpoint::{Config, HUB};
use crate::fetch::Fetches;
use crate::repository::{Ask, Purpose, Repository};
use crate::transport::Transport;
use crate::{DistributionError, endpoint};

/// Pieces of layers that are fetched ahead at a time, over all pulls: a bound on memory.
const AHEAD: usize = 6;
/// Bytes of a list of search results at most.
const SEARCH_LIMIT: usize = 4 << 20;

/// The registries of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) fetches: Fetches,
    pub(crate) ahead: Arc<Semaphore>,
    /// Which insecure hosts turned out to speak no TLS.
    plain: Mutex<HashMap<String, bool>>,
}

impl Shared {
    pub(crate) fn plain_hosts(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// The repository.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// How many like it.
    pub star_count: i64,
    /// Whether Docker keeps it.
    pub is_official: bool,
    /// Whether it is built from sources by the hub.
    pub is_automated: bool,
}

impl Client {
    /// Makes a client; nothing is connected yet.
    pub fn new(config: Config) -> Self {
        let transport = Transport::new(config.proxies.clone(), config.stall);
        let ahead = Arc::new(Semaphore::new(AHEAD));
        let shared = Shared { config, transport, fetches: Fetches::default(), ahead, plain: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The repository of a reference.
    ///
    /// # Errors
    /// [`DistributionError::Settings`] where the registry's settings cannot be read.
    pub fn repository(
        &self,
        reference: &Reference,
        credentials: Credentials,
        purpose: Purpose,
    ) -> Result<Repository, DistributionError> {
        let actions = match purpose {
            Purpose::Pull => "pull",
            Purpose::Push => "pull,push",
        };
        let scopes = BTreeSet::from([format!("repository:{}:{actions}", reference.path())]);
        Repository::new(self.shared.clone(), reference.domain(), reference.path(), credentials, scopes)
    }

    /// Tries a login at a registry (`docker login`). Returns a token to keep in the password's place, if the registry
    /// gave one.
    ///
    /// # Errors
    /// [`DistributionError::Login`], [`DistributionError::Token`] and those of requests.
    pub async fn log_in(&self, domain: &str, credentials: Credentials) -> Result<String, DistributionError> {
        let repository = Repository::new(self.shared.clone(), domain, "", credentials, BTreeSet::new())?;
        let Some(own) = repository.endpoints(|_| true).into_iter().rfind(|e| e.own).cloned() else {
            return Err(DistributionError::Invalid(format!("registry {domain} has no host of its own")));
        };
        let ask = Ask::new(Method::GET, "/".to_owned());
        let login = |url: String, status: StatusCode| DistributionError::Login { url, status: status.to_string() };
        match repository.call(&own, &ask).await {
            Ok(answer) if answer.head.status == StatusCode::OK => Ok(repository.identity()),
            Ok(answer) => Err(login(repository.url(&own, "/"), answer.head.status)),
            Err(DistributionError::Unauthorised(_)) => Err(login(repository.url(&own, "/"), StatusCode::UNAUTHORIZED)),
            Err(e) => Err(e),
        }
    }

    /// Searches a registry by its search endpoint, `/v1/search`. The term may begin with the registry's name.
    ///
    /// # Errors
    /// [`DistributionError::Search`] and those of requests.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<Found>, DistributionError> {
        #[derive(Deserialize)]
        struct Results {
            #[serde(default)]
            results: Vec<Found>,
        }
        let (domain, term) = search_domain(term);
        let mut config = self.shared.config.clone();
        config.mirrors.clear();
        let mut host = endpoint::endpoints(&domain, &config)?.pop().ok_or(DistributionError::Search(404))?;
        if domain == HUB {
            host.host = "index.docker.io".to_owned();
        }
        host.prefix = "/v1".to_owned();
        let repository = Repository::new(self.shared.clone(), &domain, "", credentials, BTreeSet::new())?;
        let target = format!("/search?{}", encoded(&[("q", &term), ("n", &limit.to_string())]));
        let ask = Ask::new(Method::GET, target);
        let mut answer = repository.call(&host, &ask).await?;
        if answer.head.status != StatusCode::OK {
            return Err(DistributionError::Search(answer.head.status.as_u16()));
        }
        let url = repository.url(&host, "/search");
        let failed = |source| DistributionError::Request { method: "Get".to_owned(), url, source };
        let bytes = answer.whole(SEARCH_LIMIT).await.map_err(failed)?.unwrap_or_default();
        let results: Results = serde_json::from_slice(&bytes)
            .map_err(|e| DistributionError::Document { subject: "search results".to_owned(), reason: e.to_string() })?;
        Ok(results.results)
    }
}

/// Splits the registry off a search term (moby `registry/search.go`, `splitReposSearchTerm`).
fn search_domain(term: &str) -> (String, String) {
    let hub = |rest: &str| (HUB.to_owned(), rest.strip_prefix("library/").unwrap_or(rest).to_owned());
    match term.split_once('/') {
        Some((HUB | "index.docker.io", rest)) => hub(rest),
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (first.to_owned(), rest.to_owned())
        }
        _ => hub(term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_terms_name_registries() {
        for (term, domain, rest) in [
            ("busybox", "docker.io", "busybox"),
            ("library/busybox", "docker.io", "busybox"),
            ("user/app", "docker.io", "user/app"),
            ("docker.io/user/app", "docker.io", "user/app"),
            ("localhost:5000/a/b", "localhost:5000", "a/b"),
        ] {
            assert_eq!(search_domain(term), (domain.to_owned(), rest.to_owned()), "{term}");
        }
    }
}
