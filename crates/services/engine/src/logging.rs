//! A container's log: its configuration with what `labels`, `env` and `tag` select, and sending it on where its driver does.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wharf_forward::{ForwardError, Forwarder, Info, Request, is_drained};
use wharf_logs::{Config, LogError};
use wharf_template::{Template, Value};

use crate::config::EngineConfig;
use crate::container::ContainerRecord;

/// How long the log of a container that is being removed may take to be delivered.
const REMOVAL: Duration = Duration::from_secs(10);

/// The tag of drivers that send messages away, if none is given.
const TAG: &str = "{{.ID}}";

/// A log configuration that cannot be used. Docker's texts.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Options of the spool or the driver.
    #[error("{}", crate::error::log_text(.0))]
    Options(LogError),
    /// `labels-regex` or `env-regex`.
    #[error("error parsing regexp: {0}")]
    Regex(String),
    /// `tag`.
    #[error("{0}")]
    Tag(String),
    /// The driver.
    #[error("{}", wharf_error::Chain(.0))]
    Forward(ForwardError),
}

// The texts hold the whole chain already, so the inner errors are no sources.
impl From<LogError> for LoggingError {
    fn from(error: LogError) -> Self {
        Self::Options(error)
    }
}

impl From<ForwardError> for LoggingError {
    fn from(error: ForwardError) -> Self {
        Self::Forward(error)
    }
}

/// What fits an option's list of names or its pattern.
struct Wanted<'a> {
    names: Vec<&'a str>,
    pattern: Option<regex_lite::Regex>,
}

impl<'a> Wanted<'a> {
    fn of(names: &'a str, pattern: &str) -> Result<Self, LoggingError> {
        let compile = |p: &str| regex_lite::Regex::new(p).map_err(|e| LoggingError::Regex(format!("{e}: `{p}`")));
        let pattern = Some(pattern).filter(|p| !p.is_empty()).map(compile).transpose()?;
        Ok(Wanted { names: names.split(',').filter(|n| !n.is_empty()).collect(), pattern })
    }

    fn fits(&self, name: &str) -> bool {
        self.names.contains(&name) || self.pattern.as_ref().is_some_and(|p| p.is_match(name))
    }
}

/// The rendered tag (moby `daemon/logger/loggerutils/log_tag.go`).
fn tag(record: &ContainerRecord, template: &str) -> Result<String, LoggingError> {
    let text = |e: &dyn std::fmt::Display| LoggingError::Tag(e.to_string());
    let parsed = Template::parse("log-tag", template).map_err(|e| text(&e))?;
    let id = record.id.as_str();
    let image = record.image.strip_prefix("sha256:").unwrap_or(&record.image);
    let command = record.command();
    let fields = [
        ("ID", id.get(..12).unwrap_or(id)),
        ("FullID", id),
        ("Name", &record.name),
        ("ContainerName", &format!("/{}", record.name)),
        ("ContainerID", id),
        ("ImageID", image.get(..12).unwrap_or(image)),
        ("ImageFullID", &record.image),
        ("ImageName", &record.config.image),
        ("ContainerImageName", &record.config.image),
        ("ContainerImageID", &record.image),
        ("ContainerEntrypoint", command.first().map_or("", String::as_str)),
        ("Command", &command.join(" ")),
        ("DaemonName", "docker"),
    ];
    let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
    parsed.render(&Value::row("*logger.Info", fields)).map_err(|e| text(&e))
}

/// A container's log configuration, with the attributes of its messages.
pub(crate) fn log_config(record: &ContainerRecord) -> Result<Config, LoggingError> {
    let log = &record.host.log_config;
    let options = || log.config.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    let mut config = Config::parse(&log.r#type, options())?;
    let option = |key: &str| options().find(|(k, _)| *k == key).map_or("", |(_, v)| v);
    if config.driver == wharf_logs::Driver::None || options().next().is_none() {
        return Ok(config);
    }
    let labels = Wanted::of(option("labels"), option("labels-regex"))?;
    let variables = Wanted::of(option("env"), option("env-regex"))?;
    let of_labels = record.config.labels.iter().flatten().filter(|(k, _)| labels.fits(k));
    let mut attrs: BTreeMap<String, String> = of_labels.map(|(k, v)| (k.clone(), v.clone())).collect();
    let pairs = record.config.env.iter().flatten().filter_map(|entry| entry.split_once('='));
    attrs.extend(pairs.filter(|(k, _)| variables.fits(k)).map(|(k, v)| (k.to_owned(), v.to_owned())));
    // Docker shows the tag in json-file's attributes only where one is given.
    if config.remote.is_none() && !option("tag").is_empty() {
        attrs.insert("tag".to_owned(), tag(record, option("tag"))?);
    }
    config.attrs = attrs;
    Ok(config)
}

/// What messages that are sent away tell of their container.
fn info(record: &ContainerRecord, config: &Config) -> Result<Info, LoggingError> {
    let given = config.remote.as_ref().map_or("", |r| r.get("tag"));
    Ok(Info {
        id: record.id.to_string(),
        name: record.name.clone(),
        image_id: record.image.clone(),
        image_name: record.config.image.clone(),
        command: record.command().join(" "),
        created: record.created.to_string(),
        tag: tag(record, if given.is_empty() { TAG } else { given })?,
        extra: config.attrs.clone(),
    })
}

fn open(folder: &Path) -> Result<OwnedFd, LoggingError> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty()).map_err(|e| ForwardError::Thread(e.into()).into())
}

/// The forwarders of containers whose driver sends messages away, by container.
#[derive(Debug, Default)]
pub(crate) struct Forwarders(Mutex<HashMap<String, Forwarder>>);

impl Forwarders {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Forwarder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts forwarding of a container's log, if its driver does that. One of an earlier run gives way: it goes on where
    /// that got to.
    pub(crate) fn start(
        &self,
        engine: &EngineConfig,
        record: &ContainerRecord,
        log: &Config,
    ) -> Result<(), LoggingError> {
        if log.remote.is_none() {
            return Ok(());
        }
        let folder = open(&engine.container_folder(&record.id))?;
        self.abandon(record.id.as_str());
        let request = Request { folder, config: log.clone(), info: info(record, log)? };
        if let Some(forwarder) = Forwarder::start(request)? {
            self.map().insert(record.id.to_string(), forwarder);
        }
        Ok(())
    }

    /// Goes on with the log of a container that an earlier engine knew: one that runs, or one whose log is not delivered yet.
    pub(crate) fn adopt(&self, engine: &EngineConfig, record: &ContainerRecord, running: bool) {
        let Ok(log) = log_config(record) else { return };
        if log.remote.is_none() {
            return;
        }
        let folder = engine.container_folder(&record.id);
        let spooled = log.file(record.id.as_str()).is_some_and(|f| folder.join(f).exists());
        if !running && (!spooled || open(&folder).is_ok_and(|f| is_drained(&f))) {
            return;
        }
        if let Err(error) = self.start(engine, record, &log) {
            tracing::warn!(container = %record.id, %error, "cannot forward the log");
        } else if !running {
            self.finish(record.id.as_str());
        }
    }

    /// Tells that a container has ended.
    pub(crate) fn finish(&self, container: &str) {
        if let Some(forwarder) = self.map().get(container) {
            forwarder.finish();
        }
    }

    /// Ends forwarding where it is.
    pub(crate) fn abandon(&self, container: &str) {
        if let Some(forwarder) = self.map().remove(container) {
            forwarder.abandon();
        }
    }

    /// Removes a container's folder: at once, or, if its log is still being delivered, soon, by a thread of its own.
    pub(crate) fn remove_folder(&self, container: &str, folder: &Path) -> std::io::Result<()> {
        let forwarder = self.map().remove(container).filter(|f| !f.is_done());
        let Some(forwarder) = forwarder else { return std::fs::remove_dir_all(folder) };
        forwarder.finish();
        let (id, folder) = (container.to_owned(), folder.to_owned());
        let wait = move || {
            if !forwarder.wait(REMOVAL) {
                tracing::warn!(container = id, "the log of a removed container could not be delivered");
                forwarder.abandon();
            }
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!(container = id, %error, "cannot remove the container's folder");
            }
        };
        std::thread::Builder::new().name("last-log".to_owned()).stack_size(128 << 10).spawn(wait).map(drop)
    }

    /// Ends all forwarding; the next engine goes on.
    pub(crate) fn close(&self) {
        let all: Vec<Forwarder> = self.map().drain().map(|(_, f)| f).collect();
        all.iter().for_each(Forwarder::abandon);
        for forwarder in all {
            forwarder.wait(Duration::from_secs(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_select_labels_and_variables() {
        let wanted = Wanted::of("a,b", "^x.").expect("valid");
        assert_eq!(["a", "b", "c", "xy", "x"].map(|n| wanted.fits(n)), [true, true, false, true, false]);
        assert!(Wanted::of("", "").expect("valid").names.is_empty());
        let error = Wanted::of("", "(").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with("error parsing regexp: "), "{error}");
    }
}
