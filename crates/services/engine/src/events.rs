//! The events bus: what happened to containers, images, networks and volumes, in order, with a short memory.
//!
//! A subscriber gets what is remembered since its start time, then everything new, without a gap between: both are
//! taken under one lock. A subscriber that falls [`LIVE`] events behind loses the oldest (as with Docker, whose
//! publisher gives up on a slow reader after 100 ms).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;
use wharf_api_types::Filters;
use wharf_types::Timestamp;

/// How many events are remembered for `since`. Docker's number (moby daemon/events, `eventsLimit`).
pub const REMEMBERED: usize = 256;
/// How many events may wait for one subscriber.
pub const LIVE: usize = 1024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The daemon itself.
    Daemon,
}

impl Subject {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Container => "container",
            Subject::Image => "image",
            Subject::Network => "network",
            Subject::Volume => "volume",
            Subject::Daemon => "daemon",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    /// What happened: `create`, `start`, `exec_start: true`, …
    pub action: String,
    /// Id (containers, networks), name (volumes) or reference (images).
    pub id: String,
    /// Labels, name, image and what the action adds.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
}

impl Event {
    /// Whether the event passes a `GET /events` filter. Keys that are not known pass nothing: callers refuse them.
    pub fn passes(&self, filters: &Filters) -> bool {
        let base = |action: &str| action.split(':').next().unwrap_or_default().to_owned();
        let named = |subject: Subject, wanted: &str| {
            self.subject == subject
                && (self.id == wanted
                    || self.id.starts_with(wanted) && subject == Subject::Container
                    || self.attributes.get("name").is_some_and(|n| n == wanted))
        };
        let accepts = |key: &str, value: &str| match key {
            "type" => self.subject.as_str() == value,
            "event" => self.action == value || base(&self.action) == value,
            "container" => named(Subject::Container, value.trim_start_matches('/')),
            "image" => self.about_image(value),
            "network" => named(Subject::Network, value),
            "volume" => named(Subject::Volume, value),
            "daemon" => named(Subject::Daemon, value),
            "scope" => value == "local",
            "label" => match value.split_once('=') {
                Some((k, v)) => self.attributes.get(k).is_some_and(|have| have == v),
                None => self.attributes.contains_key(value),
            },
            _ => false,
        };
        filters.iter().all(|(key, values)| values.is_empty() || values.iter().any(|value| accepts(key, value)))
    }

    fn about_image(&self, wanted: &str) -> bool {
        let bare = |reference: &str| {
            let tail = reference.rfind('/').map_or(0, |i| i + 1);
            reference[tail..].find(':').map_or(reference.to_owned(), |i| reference[..tail + i].to_owned())
        };
        let key = if self.subject == Subject::Image { "name" } else { "image" };
        let have = self.attributes.get(key);
        (self.subject == Subject::Image && self.id == wanted)
            || have.is_some_and(|have| have == wanted || bare(have) == wanted)
    }
}

/// The bus.
#[derive(Debug)]
pub struct Events {
    inner: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
    published: std::sync::atomic::AtomicU64,
}

/// What a subscriber reads: the past first, then the live part.
#[derive(Debug)]
pub struct Subscription {
    /// Remembered events that are not older than the asked-for start, oldest first.
    pub past: Vec<Arc<Event>>,
    /// What happens from now on.
    pub live: broadcast::Receiver<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { inner: Mutex::default(), live: broadcast::channel(LIVE).0, published: Default::default() }
    }
}

impl Events {
    /// Publishes an event that happened now.
    pub fn publish(
        &self,
        subject: Subject,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let (action, id) = (action.into(), id.into());
        let mut remembered = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // The time is taken under the lock, so that times never run against the order.
        let event = Arc::new(Event { subject, action, id, attributes, at: Timestamp::now() });
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(event.clone());
        self.published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // No subscriber is the usual case and no failure.
        let _ = self.live.send(event);
    }

    /// Starts to listen. Without `since` the past part is empty.
    pub fn subscribe(&self, since: Option<Timestamp>) -> Subscription {
        let remembered = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let past = since.map_or_else(Vec::new, |since| remembered.iter().filter(|e| e.at >= since).cloned().collect());
        Subscription { past, live: self.live.subscribe() }
    }

    /// How many events there have been.
    pub fn published(&self) -> u64 {
        self.published.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How many subscribers listen now (`NEventsListener` of `/info`).
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(bus: &Events, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        bus.publish(Subject::Container, action, id, attributes);
    }

    #[tokio::test]
    async fn past_and_live_join_without_gap_or_repeat() {
        let bus = Events::default();
        publish(&bus, "create", "1", &[]);
        let mut reader = bus.subscribe(Some(Timestamp::default()));
        publish(&bus, "start", "1", &[]);
        assert_eq!(reader.past.iter().map(|e| e.action.as_str()).collect::<Vec<_>>(), ["create"]);
        assert_eq!(reader.live.recv().await.expect("sent").action, "start");
        assert!(reader.live.try_recv().is_err());
        assert!(bus.subscribe(None).past.is_empty());
    }

    #[test]
    fn the_bus_remembers_a_bounded_number() {
        let bus = Events::default();
        for i in 0..REMEMBERED + 10 {
            publish(&bus, "start", &i.to_string(), &[]);
        }
        let past = bus.subscribe(Some(Timestamp::default())).past;
        assert_eq!(past.len(), REMEMBERED);
        assert_eq!(past[0].id, "10");
    }

    #[test]
    fn filters_match_as_docker_matches() {
        let bus = Events::default();
        publish(&bus, "exec_start: true ", "abcdef", &[("name", "web"), ("image", "busybox:1"), ("k", "v")]);
        let event = bus.subscribe(Some(Timestamp::default())).past[0].clone();
        let passes = |key: &str, value: &str| {
            let mut filters = Filters::default();
            filters.add(key, value);
            event.passes(&filters)
        };
        for (key, value) in [
            ("type", "container"),
            ("event", "exec_start"),
            ("container", "web"),
            ("container", "abc"),
            ("image", "busybox"),
            ("image", "busybox:1"),
            ("label", "k=v"),
            ("label", "k"),
            ("scope", "local"),
        ] {
            assert!(passes(key, value), "{key}={value}");
        }
        for (key, value) in
            [("type", "image"), ("event", "exec"), ("label", "k=x"), ("container", "we"), ("nosuch", "1")]
        {
            assert!(!passes(key, value), "{key}={value}");
        }
    }
}
