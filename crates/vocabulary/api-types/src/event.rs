//! What happened: the lines of `GET /events`.

use wharf_types::Timestamp;

use crate::StringMap;
use crate::go::empty;

bodies! {
    /// One event. The fields before `Type` are the old form, for containers and images only; [`EventMessage::new`]
    /// fills them.
    pub struct EventMessage {
        #[serde(rename = "status", skip_serializing_if = "empty")]
        status: String,
        #[serde(rename = "id", skip_serializing_if = "empty")]
        id: String,
        #[serde(rename = "from", skip_serializing_if = "empty")]
        from: String,
        r#type: String,
        action: String,
        actor: EventActor,
        #[serde(rename = "scope")]
        scope: String,
        /// Seconds since the epoch.
        #[serde(rename = "time")]
        time: i64,
        #[serde(rename = "timeNano")]
        time_nano: i64,
    }

    /// What the event is about.
    pub struct EventActor {
        #[serde(rename = "ID")]
        id: String,
        attributes: StringMap,
    }
}

impl EventMessage {
    /// Makes a local event, with the old form's fields where Docker sets them (moby `daemon/events.go`).
    pub fn new(kind: &str, action: &str, id: &str, attributes: StringMap, at: Timestamp) -> Self {
        let (status, old_id, from) = match kind {
            "container" => (action, id, attributes.get("image").cloned().unwrap_or_default()),
            "image" => (action, id, String::new()),
            _ => ("", "", String::new()),
        };
        Self {
            status: status.to_owned(),
            id: old_id.to_owned(),
            from,
            r#type: kind.to_owned(),
            action: action.to_owned(),
            actor: EventActor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: at.seconds(),
            time_nano: i64::try_from(at.unix_nanos()).unwrap_or_default(),
        }
    }
}
