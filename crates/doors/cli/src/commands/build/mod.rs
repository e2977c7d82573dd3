//! `docker build`, `docker builder prune`, `docker builder du`.
//!
//! A build goes by BuildKit's protocol ([`solve`]): the daemon asks a session that we serve for what it needs. With
//! `DOCKER_BUILDKIT=0`, an archive on standard input, or a daemon without BuildKit, the context goes as an archive to
//! the classic door ([`classic`]).

mod blobs;
mod classic;
mod folder;
mod plan;
mod receive;
mod session;
mod show;
mod solve;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Map, Value};
use wharf_api_client::{Query, Request};

use self::plan::{Input, Plan};
use self::show::{Mode, Show};
use crate::exit::{Exit, path_error};
use crate::parse::Matches;
use crate::shell::Shell;

/// Flags that only a session can serve.
const SESSION_ONLY: &[&str] = &[
    "allow",
    "annotation",
    "attest",
    "build-context",
    "cache-to",
    "load",
    "metadata-file",
    "no-cache-filter",
    "output",
    "provenance",
    "push",
    "reproducible",
    "sbom",
    "secret",
    "ssh",
];

/// `docker build`.
pub fn build(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let wanted = std::env::var("DOCKER_BUILDKIT").ok().filter(|v| !v.is_empty());
    let wanted = wanted.map(|v| {
        crate::value::parse_bool(&v)
            .map_err(|_| Exit::new("DOCKER_BUILDKIT environment variable expects boolean value: invalid syntax"))
    });
    let classic = match wanted.transpose()? {
        Some(on) => !on,
        None => !speaks(shell)?,
    };
    if classic {
        only_classic(m, "the classic builder was asked for, or is all that the daemon has")?;
        return classic::build(shell, m);
    }
    let mut plan = Plan::of(m)?;
    let environment = std::env::var("BUILDKIT_PROGRESS").unwrap_or_default();
    let progress = if m.changed("progress") { m.text("progress") } else { environment.as_str() };
    let mode = Mode::of(progress, m.bool("quiet"))?;
    let mut scratch = None;
    if plan.input != Input::None {
        let mut input = BufReader::with_capacity(64 << 10, io::stdin().lock());
        if plan.input == Input::Context && classic::is_archive(input.fill_buf()?) {
            only_classic(m, "an archive on standard input goes to the classic builder")?;
            return classic::build_archive(shell, m, &mut input);
        }
        let mut text = Vec::new();
        input.read_to_end(&mut text)?;
        scratch = Some(Scratch::new(&mut plan, &text)?);
    }
    let title = shell.context();
    let mut show = Show::begin(mode, &title);
    let done = solve::run(shell, &plan, &mut show);
    drop(scratch);
    let done = done?;
    for place in plan.exports.iter().filter(|p| plan::in_folder(p)) {
        // Each kind has a fact of its own: a build may have both.
        let fact = if place.r#type == "mounts" { "cache.mounts.manifest" } else { "cache.manifest" };
        if let (Some(folder), Some(manifest)) = (place.attrs.get("dest"), done.facts.get(fact)) {
            let tag = place.attrs.get("tag").map_or("latest", String::as_str);
            blobs::tag(Path::new(folder), tag, manifest)?;
        }
    }
    // As the daemon names the image, so that every command finds it by this.
    let image = done.facts.get("containerimage.digest").cloned().unwrap_or_default();
    if !m.text("iidfile").is_empty() {
        let path = m.text("iidfile");
        fs::write(path, &image).map_err(|e| path_error("open", path, &e))?;
    }
    if !m.text("metadata-file").is_empty() {
        let path = m.text("metadata-file");
        let text = metadata(&done, &title);
        fs::write(path, text).map_err(|e| path_error("open", path, &e))?;
    }
    let quiet = m.bool("quiet") && !plan.places.contains(&plan::Place::Output);
    if quiet && !image.is_empty() { shell.line(&image) } else { Ok(()) }
}

/// Whether the daemon has BuildKit's door.
fn speaks(shell: &Shell) -> Result<bool, Exit> {
    let reply = shell.client()?.call(Request::get("/_ping"))?;
    Ok(reply.head.header("builder-version") == Some("2"))
}

fn only_classic(m: &Matches, why: &str) -> Result<(), Exit> {
    match SESSION_ONLY.iter().find(|f| m.changed(f)) {
        Some(flag) => Err(Exit::new(format!("the --{flag} option requires BuildKit: {why}"))),
        None => Ok(()),
    }
}

/// The facts as JSON; what is JSON in base64 is unpacked.
fn metadata(done: &solve::Done, title: &str) -> String {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    all.insert("buildx.build.ref".to_owned(), format!("{title}/{title}/{}", done.reference).into());
    for (key, text) in &done.facts {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
        let object = decoded.and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok());
        all.insert(key.clone(), object.map_or_else(|| text.clone().into(), Value::Object));
    }
    // Maps of texts always print.
    serde_json::to_string_pretty(&all).unwrap_or_default()
}

/// A folder for a Dockerfile that came by standard input; gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(plan: &mut Plan, text: &[u8]) -> Result<Self, Exit> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("docker-build-{}", solve::name()));
        let failed = |path: &Path, e: io::Error| path_error("mkdir", &path.to_string_lossy(), &e);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| failed(&path, e))?;
        let scratch = Self(path.clone());
        let file = path.join("Dockerfile");
        fs::write(&file, text).map_err(|e| path_error("open", &file.to_string_lossy(), &e))?;
        if plan.input == Input::Context {
            let empty = path.join("context");
            fs::create_dir(&empty).map_err(|e| failed(&empty, e))?;
            plan.folders.insert("context".to_owned(), empty);
        }
        plan.folders.insert("dockerfile".to_owned(), path);
        plan.attrs.insert("filename".to_owned(), "Dockerfile".to_owned());
        if plan.attrs.contains_key("context") {
            plan.attrs.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left lies in a folder for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `docker builder prune`.
pub fn prune(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let all = m.bool("all");
    let what = if all { "This will remove all build cache." } else { "This will remove all dangling build cache." };
    let dry = m.bool("dry-run");
    if !dry && !super::prune::confirmed(m, what)? {
        return Ok(());
    }
    let mut query = Query::new().with_some("filters", &super::filters(&m.list("filter")));
    if dry {
        query = query.with("dry-run", "1");
    }
    if all {
        query = query.with("all", "1");
    }
    if m.bytes("keep-storage") > 0 {
        query = query.with("keep-storage", &m.bytes("keep-storage").to_string());
    }
    let report: serde_json::Value = shell.client()?.call(Request::post("/build/prune").query(query))?.parse()?;
    let ids = report.get("CachesDeleted").and_then(|v| v.as_array()).cloned().unwrap_or_default();
    if !ids.is_empty() {
        shell.line("ID\t\t\t\t\t\tRECLAIMABLE\tSIZE\t\tLAST ACCESSED")?;
        for id in &ids {
            shell.line(id.as_str().unwrap_or_default())?;
        }
    }
    let bytes = report.get("SpaceReclaimed").and_then(serde_json::Value::as_u64).unwrap_or(0);
    shell.line(&format!("Total:\t{}", crate::format::size::decimal(bytes as f64)))
}
