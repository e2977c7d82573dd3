//! Egress policies as users give them: options of a network, or annotations of a container.
//!
//! Annotations and not labels, since an image's labels become its containers' labels, and no image may widen what its
//! containers reach. A container's own policy stands instead of its networks'.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_api_types::StringMap;
use wharf_dns::{Observer, Permit};
use wharf_network::{Egress, Refusal};
use wharf_types::ContainerId;

use super::NetworkRecord;
use crate::EngineError;
use crate::container::{ContainerRecord, Registry, Sandbox};
use crate::events::{Events, Subject};
use crate::lifecycle::Lifecycle;

/// `deny` or `allow`.
pub(crate) const MODE: &str = "com.wharf.egress";
/// What may be reached all the same, with commas.
pub(crate) const ALLOWED: &str = "com.wharf.egress.allow";

/// How long the same refused name is not told again, and how many are remembered for that.
const QUIET: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 1024;

/// Tells of what policies refused.
pub(crate) struct Denials {
    registry: Arc<Registry>,
    events: Arc<Events>,
    /// Names, by container, and when that was told.
    told: Mutex<HashMap<(ContainerId, String), Instant>>,
}

/// Reads a policy. The outer `None`: nothing is said about it; the inner one: everything is allowed.
pub(crate) fn read(options: &StringMap) -> Result<Option<Option<Egress>>, EngineError> {
    let wrong = |reason: String| EngineError::Egress(reason);
    let allowed = options.get(ALLOWED).map_or("", String::as_str);
    match (options.get(MODE).map(String::as_str), allowed) {
        (None, "") => Ok(None),
        (Some("allow"), "") => Ok(Some(None)),
        (Some("deny"), list) => Ok(Some(Some(Egress::parse(list).map_err(|e| wrong(e.to_string()))?))),
        (None | Some("allow"), _) => Err(wrong(format!("{ALLOWED} needs {MODE}=deny"))),
        (Some(other), _) => Err(wrong(format!("{MODE} must be allow or deny: {other:?}"))),
    }
}

/// What a container may reach from a network. Both were checked when they were made.
pub(crate) fn policy(record: &ContainerRecord, network: &NetworkRecord) -> Result<Option<Egress>, EngineError> {
    let own = record.host.annotations.as_ref().map(read).transpose()?.flatten();
    match own {
        Some(own) => Ok(own),
        None => Ok(read(&network.options)?.flatten()),
    }
}

/// Whether a container has a policy of its own.
pub(crate) fn has_own(record: &ContainerRecord) -> bool {
    record.host.annotations.as_ref().is_some_and(|a| a.contains_key(MODE))
}

impl Lifecycle {
    /// Which names a container may have asked for, and who is told of their addresses; nobody and nothing without policy.
    pub(crate) fn watch_names(
        &self,
        record: &ContainerRecord,
        sandbox: &Sandbox,
    ) -> (Option<Permit>, Option<Observer>) {
        let all: Vec<Egress> = sandbox.endpoints.values().filter_map(|e| e.egress.clone()).collect();
        let free = sandbox.endpoints.values().any(|e| e.egress.is_none());
        if all.is_empty() {
            return (None, None);
        }
        let (id, denials) = (record.id.clone(), self.denials.clone());
        let observer: Observer = {
            let (id, networks) = (id.clone(), self.networks.clone());
            Arc::new(move |name, answer| {
                if let Err(error) = networks.learn(&id, name, answer) {
                    tracing::warn!(container = %id, name, error = %wharf_error::Chain(&error), "cannot allow a name");
                }
            })
        };
        // One that can also go out by a network without policy may ask for everything.
        let permit: Option<Permit> = (!free).then(|| {
            let permit: Permit = Arc::new(move |name| {
                let permitted = all.iter().any(|egress| egress.permits(name));
                if !permitted {
                    denials.tell_name(&id, name);
                }
                permitted
            });
            permit
        });
        (permit, Some(observer))
    }
}

impl Denials {
    pub(crate) fn new(registry: Arc<Registry>, events: Arc<Events>) -> Denials {
        Denials { registry, events, told: Mutex::default() }
    }

    /// Tells of a packet.
    pub(crate) fn tell_packet(&self, refusal: &Refusal) {
        let protocol = match refusal.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "ipv6-icmp".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        };
        let mut pairs = vec![("address", refusal.to.to_string()), ("protocol", protocol)];
        pairs.extend(refusal.port.map(|p| ("port", p.to_string())));
        pairs.extend(refusal.name.clone().map(|name| ("host", name)));
        self.tell(&refusal.container, pairs);
    }

    /// Tells of a name that was asked for.
    fn tell_name(&self, container: &ContainerId, name: &str) {
        // Addresses are asked for by programs that write logs; that is no try to go anywhere.
        if name.ends_with(".arpa") {
            return;
        }
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if told.len() >= REMEMBERED {
                told.retain(|_, at| now.duration_since(*at) < QUIET);
            }
            let key = (container.clone(), name.to_owned());
            if told.len() >= REMEMBERED || told.get(&key).is_some_and(|at| now.duration_since(*at) < QUIET) {
                return;
            }
            told.insert(key, now);
        }
        self.tell(container, vec![("host", name.to_owned())]);
    }

    fn tell(&self, container: &ContainerId, pairs: Vec<(&str, String)>) {
        let Ok(found) = self.registry.find(container.as_str()) else { return };
        let view = found.view();
        let mut attributes: StringMap = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        attributes.insert("name".to_owned(), view.record.name.clone());
        attributes.insert("image".to_owned(), view.record.config.image.clone());
        tracing::info!(%container, name = view.record.name, ?attributes, "egress denied");
        self.events.publish(Subject::Container, "egress-denied", container.as_str(), attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> StringMap {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_policy_is_a_mode_and_a_list_that_only_deny_has() {
        assert_eq!(read(&map(&[])).expect("nothing"), None);
        assert_eq!(read(&map(&[(MODE, "allow")])).expect("valid"), Some(None));
        let both = read(&map(&[(MODE, "deny"), (ALLOWED, "a.example:443,10.0.0.0/8")])).expect("valid");
        assert_eq!(both.flatten().map(|e| e.allowed.len()), Some(2));
        for wrong in [
            &[(MODE, "no")][..],
            &[(ALLOWED, "x")],
            &[(MODE, "allow"), (ALLOWED, "x")],
            &[(MODE, "deny"), (ALLOWED, "x:y")],
        ] {
            assert!(read(&map(wrong)).is_err(), "{wrong:?}");
        }
    }
}
