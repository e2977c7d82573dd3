//! `docker system df` and `docker system check`.

use std::fmt::Write;

use wharf_api_client::{Query, Request};
use wharf_api_types::{BuildCache, ContainerSummary, DiskUsage, StoreCheck};
use wharf_template::{FunctionSet, List, MissingKey, Template, Value};

use super::{images, ps, volume};
use crate::exit::Exit;
use crate::format::row::{Row, short_id};
use crate::format::{Listing, moment, size};
use crate::parse::Matches;
use crate::shell::Shell;

const HEADERS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// Images, containers, volumes or cache: how much there is and how much could go.
struct Part {
    name: &'static str,
    total: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
}

fn parts(usage: &DiskUsage) -> [Part; 4] {
    let images = usage.images.as_deref().unwrap_or_default();
    let used: i64 = images
        .iter()
        .filter(|i| i.containers != 0 && i.size != -1)
        .map(|i| if i.shared_size == -1 { i.size } else { i.size - i.shared_size })
        .sum();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let running =
        |c: &&wharf_api_types::ContainerSummary| matches!(c.state.as_str(), "running" | "paused" | "restarting");
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let volume_size = |unused_only: bool| -> i64 {
        volumes
            .iter()
            .filter_map(|v| v.usage_data.as_ref())
            .filter(|u| u.size != -1 && (!unused_only || u.ref_count == 0))
            .map(|u| u.size)
            .sum()
    };
    let cache = usage.build_cache.as_deref().unwrap_or_default();
    let container_size: i64 = containers.iter().map(|c| c.size_rw).sum();
    let in_use: i64 = containers.iter().filter(running).map(|c| c.size_rw).sum();
    [
        Part {
            name: "Images",
            total: images.len(),
            active: images.iter().filter(|i| i.containers > 0).count(),
            size: usage.layers_size,
            reclaimable: usage.layers_size - used,
        },
        Part {
            name: "Containers",
            total: containers.len(),
            active: containers.iter().filter(running).count(),
            size: container_size,
            reclaimable: container_size - in_use,
        },
        Part {
            name: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|v| v.usage_data.as_ref().is_some_and(|u| u.ref_count > 0)).count(),
            size: volume_size(false),
            reclaimable: volume_size(true),
        },
        Part {
            name: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(|c| c.in_use).count(),
            size: cache.iter().filter(|c| !c.shared).map(|c| c.size).sum(),
            reclaimable: cache.iter().filter(|c| !c.in_use && !c.shared).map(|c| c.size).sum(),
        },
    ]
}

impl Part {
    fn row(&self) -> Value {
        let mut reclaimable = size::decimal(self.reclaimable as f64);
        if self.size > 0 && self.name != "Build Cache" {
            let _ = write!(reclaimable, " ({}%)", self.reclaimable * 100 / self.size);
        }
        Row::new("*formatter.diskUsageContext")
            .with("Type", self.name)
            .with("TotalCount", self.total.to_string())
            .with("Active", self.active.to_string())
            .with("Size", size::decimal(self.size as f64))
            .with("Reclaimable", reclaimable)
            .value()
    }
}

/// `docker system check` (Wharf extra). Fails while something is wrong.
pub fn check(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let query = Query::new().with_flag("repair", m.bool("repair"));
    let checked: StoreCheck = shell.client()?.call(Request::post("/system/check").query(query))?.parse()?;
    for finding in &checked.findings {
        let of = if finding.images.is_empty() { "<none>".to_owned() } else { finding.images.join(", ") };
        let done = if finding.outcome.is_empty() { String::new() } else { format!(": {}", finding.outcome) };
        shell.line(&format!("{} {} of {of} is {}{done}", finding.kind, finding.subject, finding.fault))?;
    }
    let bytes = size::decimal(checked.bytes as f64);
    shell.line(&format!("{} blobs ({bytes}) and {} layers were checked", checked.blobs, checked.layers))?;
    match checked.findings.iter().filter(|finding| !finding.mended).count() {
        0 => Ok(()),
        1 => Err(Exit::new("1 thing is wrong with the image store")),
        n => Err(Exit::new(format!("{n} things are wrong with the image store"))),
    }
}

/// `docker system df`.
pub fn usage(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let usage: DiskUsage = shell.client()?.call(Request::get("/system/df"))?.parse()?;
    if m.bool("verbose") {
        return match m.text("format") {
            "" | "table" => verbose(shell, &usage),
            format => formatted(shell, &usage, format),
        };
    }
    let rows: Vec<Value> = parts(&usage).iter().map(Part::row).collect();
    let table = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
    shell.print(&Listing { format: m.text("format"), table, headers: HEADERS }.render(&rows)?)
}

/// Everything as one object of four lists, for a template.
fn formatted(shell: &Shell, usage: &DiskUsage, format: &str) -> Result<(), Exit> {
    let list = |name: &str, element, items: Vec<Value>| {
        (name.to_owned(), Value::List(std::sync::Arc::new(List { items, element })))
    };
    let containers = usage.containers.iter().flatten().map(|c| ps::row(&without_root(c), true)).collect();
    let fields = vec![
        list(
            "Images",
            "*formatter.imageContext",
            usage.images.iter().flatten().map(|i| images::first_row(i, true)).collect(),
        ),
        list("Containers", "*formatter.ContainerContext", containers),
        list(
            "Volumes",
            "*formatter.volumeContext",
            usage.volumes.iter().flatten().map(|v| volume::row(v).value()).collect(),
        ),
        list("BuildCache", "*formatter.buildCacheContext", cache_rows(usage, true)),
    ];
    let whole =
        Value::Record(std::sync::Arc::new(wharf_template::Row { type_name: "*formatter.diskUsageContext", fields }));
    let text =
        if format == "json" { "{{json .}}".to_owned() } else { crate::format::unescape(format.trim_matches(' ')) };
    let wrong = |e: &dyn std::fmt::Display| Exit::new(format!("template parsing error: {e}"));
    let template = Template::parse("", &text).map_err(|e| wrong(&e))?;
    let mut out = String::new();
    template.execute(&whole, FunctionSet::Docker, MissingKey::NoValue, &mut out).map_err(|e| wrong(&e))?;
    shell.print(&out)
}

/// A container without the size of its whole root, which is told of its image.
fn without_root(container: &ContainerSummary) -> ContainerSummary {
    ContainerSummary { size_root_fs: 0, ..container.clone() }
}

const CACHE_HEADERS: &[(&str, &str)] = &[
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Parent", "PARENT"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("InUse", "IN USE"),
    ("Shared", "SHARED"),
];

/// The build cache's records, those used longest ago first.
fn cache_rows(usage: &DiskUsage, full: bool) -> Vec<Value> {
    let mut records: Vec<&BuildCache> = usage.build_cache.iter().flatten().collect();
    records.sort_by(|a, b| a.last_used_at.cmp(&b.last_used_at).then_with(|| a.id.cmp(&b.id)));
    let row = |record: &&BuildCache| {
        let id = if full { record.id.clone() } else { short_id(&record.id) };
        let mark = if record.in_use { "*" } else { "" };
        let used = record.last_used_at;
        Row::new("*formatter.buildCacheContext")
            .with("ID", format!("{id}{mark}"))
            .with("Parent", record.parents.as_deref().unwrap_or_default().join(", "))
            .with("CacheType", record.r#type.as_str())
            .with("Description", record.description.as_str())
            .with("Size", size::decimal_short(record.size as f64))
            .with("CreatedAt", record.created_at.to_string())
            .with("CreatedSince", moment::ago(record.created_at.seconds()))
            .with("LastUsedAt", used.map(|t| t.to_string()).unwrap_or_default())
            .with("LastUsedSince", used.map(|t| moment::ago(t.seconds())).unwrap_or_default())
            .with("UsageCount", record.usage_count.to_string())
            .with("InUse", record.in_use.to_string())
            .with("Shared", record.shared.to_string())
            .value()
    };
    records.iter().map(row).collect()
}

fn verbose(shell: &Shell, usage: &DiskUsage) -> Result<(), Exit> {
    let image_rows: Vec<Value> = usage.images.iter().flatten().map(|i| images::first_row(i, false)).collect();
    let container_rows: Vec<Value> =
        usage.containers.iter().flatten().map(|c| ps::row(&without_root(c), false)).collect();
    let volume_rows: Vec<Value> = usage.volumes.iter().flatten().map(|v| volume::row(v).value()).collect();
    let image_table = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.VirtualSize}}\t{{.SharedSize}}\t\
                       {{.UniqueSize}}\t{{.Containers}}";
    let container_table = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t\
                           {{.Status}}\t{{.Names}}";
    let volume_table = "{{.Name}}\t{{.Links}}\t{{.Size}}";
    let render = |table: &str, headers, rows: &[Value]| Listing { format: "", table, headers }.render(rows);
    let mut out = String::new();
    let _ = write!(out, "Images space usage:\n\n{}", render(image_table, images::HEADERS, &image_rows)?);
    let _ = write!(out, "\nContainers space usage:\n\n{}", render(container_table, ps::HEADERS, &container_rows)?);
    let _ = write!(out, "\nLocal Volumes space usage:\n\n{}", render(volume_table, volume::HEADERS, &volume_rows)?);
    let cache = &parts(usage)[3];
    let cache_table = "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t\
                       {{.Shared}}";
    let cache_rows = cache_rows(usage, false);
    let _ = write!(
        out,
        "\nBuild cache usage: {}\n\n{}",
        size::decimal(cache.size as f64),
        render(cache_table, CACHE_HEADERS, &cache_rows)?
    );
    shell.print(&out)
}
