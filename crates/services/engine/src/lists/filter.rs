//! Filters of the container list.

use std::sync::Arc;

use wharf_api_types::Filters;
use wharf_types::Timestamp;

use super::Lists;
use crate::EngineError;
use crate::container::{Status, View};

const KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];

const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// A checked filter.
pub(super) struct Filter<'a> {
    filters: &'a Filters,
    exited: Vec<i64>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    ancestors: Vec<String>,
}

fn wrong(key: &'static str, value: &str, reason: String) -> EngineError {
    EngineError::FilterValue { key, value: value.to_owned(), reason }
}

impl<'a> Filter<'a> {
    pub(super) fn read(lists: &Lists, filters: &'a Filters) -> Result<Filter<'a>, EngineError> {
        filters.check_keys(KEYS)?;
        for state in filters.get("status") {
            if !STATES.contains(&state) {
                let reason = format!("invalid value for state ({state}): must be one of {}", STATES.join(", "));
                return Err(wrong("status", state, reason));
            }
        }
        for health in filters.get("health") {
            if !HEALTH.contains(&health) {
                let reason = format!("invalid value for health ({health}): must be one of {}", HEALTH.join(", "));
                return Err(wrong("health", health, reason));
            }
        }
        let mut exited = Vec::new();
        for code in filters.get("exited") {
            let parsed = code.parse().map_err(|_| {
                let reason = format!("strconv.Atoi: parsing {code:?}: invalid syntax");
                wrong("exited", code, reason)
            });
            exited.push(parsed?);
        }
        filters.bool_or("is-task", false)?;
        let created = |key: &str| -> Result<Option<Timestamp>, EngineError> {
            let Some(name) = filters.get(key).next() else { return Ok(None) };
            Ok(Some(lists.registry.find(name)?.view().record.created))
        };
        let ancestors = filters.get("ancestor");
        // An image that does not exist has no descendants.
        let ancestors =
            ancestors.filter_map(|name| lists.images.resolve(name).ok().map(|r| r.id.to_string())).collect();
        Ok(Filter { filters, exited, before: created("before")?, since: created("since")?, ancestors })
    }

    /// Whether containers that do not run are looked at without `all`.
    pub(super) fn looks_at_all(&self) -> bool {
        ["status", "exited", "before", "since"].iter().any(|key| self.filters.contains(key))
    }

    fn any(&self, key: &str, test: impl FnMut(&str) -> bool) -> bool {
        self.filters.get(key).next().is_none() || self.filters.get(key).any(test)
    }

    pub(super) fn fits(&self, view: &Arc<View>) -> bool {
        let record = &view.record;
        let none = Default::default();
        let ended = view.state.status == Status::Exited || view.state.status == Status::Dead;
        self.any("id", |v| record.id.as_str().starts_with(v))
            && self.any("name", |v| name_fits(&record.name, v))
            && self.any("status", |v| view.state.status.as_str() == v)
            && self.filters.match_labels("label", record.config.labels.as_ref().unwrap_or(&none))
            && (self.exited.is_empty() || ended && self.exited.contains(&view.state.exit_code))
            && self.before.is_none_or(|t| record.created < t)
            && self.since.is_none_or(|t| record.created > t)
            && (!self.filters.contains("ancestor") || self.ancestors.contains(&record.image))
            && self.any("health", |v| view.health.as_ref().map_or("none", |h| h.status.as_str()) == v)
            && self.filters.bool_or("is-task", false) != Ok(true)
            && self.any("isolation", |v| v == "default")
            && self.any("network", |v| record.host.network_mode == v || view.on_network(v))
            && self.any("volume", |v| {
                record.volumes().any(|name| name == v) || record.points.iter().any(|p| p.target == v)
            })
            && self.any("publish", |v| published(view, v, true))
            && self.any("expose", |v| published(view, v, false))
    }
}

/// Docker takes the value as a regular expression and matches it against the name with and without slash. The anchors
/// `^` and `$` and literal text are understood; other operators are taken literally.
fn name_fits(name: &str, pattern: &str) -> bool {
    let (start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |r| (true, r));
    let (end, rest) = rest.strip_suffix('$').map_or((false, rest), |r| (true, r));
    let literal = rest.strip_prefix('/').filter(|_| start).unwrap_or(rest).replace('\\', "");
    match (start, end) {
        (true, true) => name == literal,
        (true, false) => name.starts_with(&literal),
        (false, true) => name.ends_with(&literal),
        (false, false) => name.contains(&literal) || format!("/{name}").contains(&literal),
    }
}

/// Whether a port or range, `80`, `80/tcp` or `80-90/udp`, is published or exposed.
fn published(view: &View, wanted: &str, public: bool) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let (Ok(low), Ok(high)) = (low.parse::<u16>(), high.parse::<u16>()) else { return false };
    super::summary::ports(view).iter().any(|p| {
        let port = if public { p.public_port } else { p.private_port };
        p.r#type == protocol && (low..=high).contains(&port)
    })
}

#[cfg(test)]
mod tests {
    use super::name_fits;

    #[test]
    fn names_match_by_part_and_by_anchors() {
        for (pattern, fits) in
            [("we", true), ("^/web1$", true), ("^web$", false), ("1$", true), ("^eb", false), ("/w", true)]
        {
            assert_eq!(name_fits("web1", pattern), fits, "{pattern}");
        }
    }
}
