//! Between the builder's words and the protocol's.

use wharf_build::{BuildError, History, stamp};
use wharf_error::Kind;
use wharf_grpc::{Code, Status};
use wharf_proto_buildkit::{Any, control};

/// A build's failure with the place in the source, in the form in which BuildKit's clients read it: JSON named by type.
pub fn status(error: &BuildError) -> Status {
    let code = match error.kind {
        Kind::NotFound => Code::NotFound,
        Kind::Invalid => Code::Unknown,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotImplemented => Code::Unimplemented,
        Kind::Unavailable => Code::Unavailable,
        Kind::Cancelled => Code::Canceled,
        _ => Code::Unknown,
    };
    let mut details = error.details.as_deref().map(<[Any]>::to_vec).unwrap_or_default();
    if let Some(vertex) = &error.vertex {
        details.push(Any {
            type_url: "github.com/moby/buildkit/errdefs.Vertex+json".to_owned(),
            value: format!("{{\"digest\":{}}}", json_text(vertex)).into_bytes(),
        });
    }
    if let Some(place) = &error.source_place {
        let position = |p: &Option<wharf_proto_buildkit::pb::Position>| {
            format!("{{\"line\":{}}}", p.as_ref().map_or(0, |p| p.line))
        };
        let ranges: Vec<String> = place
            .ranges
            .iter()
            .map(|r| format!("{{\"start\":{},\"end\":{}}}", position(&r.start), position(&r.end)))
            .collect();
        let value = format!(
            "{{\"info\":{{\"filename\":{},\"data\":\"{}\",\"language\":{}}},\"ranges\":[{}]}}",
            json_text(&place.info.filename),
            wharf_build::base64_text(&place.info.data),
            json_text(&place.info.language),
            ranges.join(",")
        );
        details.push(Any {
            type_url: "github.com/moby/buildkit/errdefs.Source+json".to_owned(),
            value: value.into_bytes(),
        });
    }
    Status { code, message: error.text.to_string(), details }
}

fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A build of the history.
pub fn history(history: &History) -> control::BuildHistoryRecord {
    let (cached, total, warnings) = history.counts;
    control::BuildHistoryRecord {
        r#ref: history.reference.clone(),
        frontend: history.frontend.clone(),
        frontend_attrs: history.attrs.clone(),
        exporters: history
            .exporters
            .iter()
            .map(|e| control::Exporter { r#type: e.kind.clone(), attrs: e.attrs.clone() })
            .collect(),
        error: history.error.as_ref().map(|e| {
            let status = status(e);
            wharf_proto_buildkit::Status { code: status.code as i32, message: status.message, details: status.details }
        }),
        created_at: Some(stamp(history.created)),
        completed_at: history.completed.map(stamp),
        exporter_response: history.facts.clone(),
        pinned: history.pinned,
        num_cached_steps: cached,
        num_total_steps: total,
        num_completed_steps: total,
        num_warnings: warnings,
        ..control::BuildHistoryRecord::default()
    }
}
