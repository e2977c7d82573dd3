//! The events bus: what happened to containers, images, networks and volumes, in order, with a short memory.
//!
//! A subscriber gets what is remembered since its start time, then everything new, without a gap between: both are
//! taken under one lock. A subscriber that falls [`LIVE`] events behind loses the oldest (as with Docker, whose
//! publisher gives up on a slow reader after 100 ms).

mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;
use wharf_api_types::Filters;
use wharf_types::Timestamp;

pub use journal::History;
use journal::Journal;

/// How many events are remembered in memory; what is older is in the journal. Docker's number (moby daemon/events,
/// `eventsLimit`).
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

    fn parse(word: &str) -> Option<Subject> {
        let all = [Subject::Container, Subject::Image, Subject::Network, Subject::Volume, Subject::Daemon];
        all.into_iter().find(|subject| subject.as_str() == word)
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
    inner: Mutex<Inner>,
    live: broadcast::Sender<Arc<Event>>,
    published: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    remembered: VecDeque<Arc<Event>>,
    /// Whether `remembered` does not hold everything that the journal holds.
    more: bool,
    journal: Option<Journal>,
}

/// What happened before a subscription.
#[derive(Debug)]
pub enum Past {
    /// Remembered events that are not older than the asked-for start, oldest first.
    Remembered(Vec<Arc<Event>>),
    /// What the journal holds; those that are older than the start must be left out.
    Written(History, Timestamp),
}

impl Past {
    /// The events, oldest first. May read files: for threads that may block.
    pub fn events(self) -> Box<dyn Iterator<Item = Arc<Event>>> {
        match self {
            Past::Remembered(list) => Box::new(list.into_iter()),
            Past::Written(history, since) => Box::new(history.events().filter(move |e| e.at >= since).map(Arc::new)),
        }
    }
}

/// What a subscriber reads: the past first, then the live part.
#[derive(Debug)]
pub struct Subscription {
    /// What happened since the asked-for start.
    pub past: Past,
    /// What happens from now on.
    pub live: broadcast::Receiver<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { inner: Mutex::default(), live: broadcast::channel(LIVE).0, published: Default::default() }
    }
}

impl Events {
    /// A bus that writes events down in a folder.
    ///
    /// # Errors
    /// What opening the journal gives.
    pub fn with_journal(folder: &Path) -> std::io::Result<Events> {
        let journal = Some(Journal::open(folder, journal::LIMIT)?);
        let inner = Inner { journal, more: true, ..Inner::default() };
        Ok(Self { inner: Mutex::new(inner), ..Self::default() })
    }

    /// Publishes an event that happened now.
    pub fn publish(
        &self,
        subject: Subject,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let (action, id) = (action.into(), id.into());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // The time is taken under the lock, so that times never run against the order.
        let event = Arc::new(Event { subject, action, id, attributes, at: Timestamp::now() });
        if let Some(journal) = &mut inner.journal
            && let Err(error) = journal.append(&event)
        {
            // A full disk must not stop containers.
            tracing::warn!(%error, "cannot write down an event");
        }
        if inner.remembered.len() == REMEMBERED {
            inner.remembered.pop_front();
            inner.more |= inner.journal.is_some();
        }
        inner.remembered.push_back(event.clone());
        self.published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // No subscriber is the usual case and no failure.
        let _ = self.live.send(event);
    }

    /// Starts to listen. Without `since` the past part is empty.
    pub fn subscribe(&self, since: Option<Timestamp>) -> Subscription {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let Some(since) = since else { return Subscription { past: Past::Remembered(Vec::new()), live } };
        let oldest = inner.remembered.front().map(|e| e.at);
        if inner.more
            && oldest.is_none_or(|oldest| since < oldest)
            && let Some(journal) = &inner.journal
        {
            match journal.history() {
                Ok(history) => return Subscription { past: Past::Written(history, since), live },
                Err(error) => tracing::warn!(%error, "cannot read the journal of events"),
            }
        }
        let past = inner.remembered.iter().filter(|e| e.at >= since).cloned().collect();
        Subscription { past: Past::Remembered(past), live }
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

    fn actions(past: Past) -> Vec<String> {
        past.events().map(|e| e.action.clone()).collect()
    }

    #[test]
    fn what_another_engine_told_is_still_known() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let bus = Events::with_journal(folder.path()).expect("opened");
        publish(&bus, "create", "1", &[("name", "web")]);
        let between = Timestamp::now();
        let bus = Events::with_journal(folder.path()).expect("opened");
        publish(&bus, "start", "1", &[]);
        assert_eq!(actions(bus.subscribe(Some(Timestamp::default())).past), ["create", "start"]);
        assert_eq!(actions(bus.subscribe(Some(between)).past), ["start"]);
    }

    #[tokio::test]
    async fn past_and_live_join_without_gap_or_repeat() {
        let bus = Events::default();
        publish(&bus, "create", "1", &[]);
        let mut reader = bus.subscribe(Some(Timestamp::default()));
        publish(&bus, "start", "1", &[]);
        assert_eq!(actions(reader.past), ["create"]);
        assert_eq!(reader.live.recv().await.expect("sent").action, "start");
        assert!(reader.live.try_recv().is_err());
        assert!(actions(bus.subscribe(None).past).is_empty());
    }

    #[test]
    fn the_bus_remembers_a_bounded_number() {
        let bus = Events::default();
        for i in 0..REMEMBERED + 10 {
            publish(&bus, "start", &i.to_string(), &[]);
        }
        let past: Vec<_> = bus.subscribe(Some(Timestamp::default())).past.events().collect();
        assert_eq!(past.len(), REMEMBERED);
        assert_eq!(past[0].id, "10");
    }

    #[test]
    fn filters_match_as_docker_matches() {
        let bus = Events::default();
        publish(&bus, "exec_start: true ", "abcdef", &[("name", "web"), ("image", "busybox:1"), ("k", "v")]);
        let event = bus.subscribe(Some(Timestamp::default())).past.events().next().expect("one event");
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
