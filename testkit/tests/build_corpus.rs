//! Dockerfiles of our own, each for one feature or documented edge: what is built must be what is stored, and with
//! `WHARF_CORPUS_PEER` (the address of a dockerd) what buildx makes there.
//!
//! `corpus/build.txt` has the cases, `corpus/build.expected` what they give; `WHARF_CORPUS_WRITE=1` writes it anew.
//! A case is `=== name`, then lines `flags: …`, `fails: …` or `differs: why the peer gives something
//! else`, then files as `--- path [mode]`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::build::buildx;
use testkit::{Cli, Daemon, Outcome};

/// The base image's name: one that nobody else uses, because the peer is not ours.
const BASE: &str = "wharf-corpus-base";

struct Case {
    name: String,
    flags: Vec<String>,
    fails: Option<String>,
    /// Why the peer gives something else.
    differs: bool,
    files: Vec<(String, u32, String)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("build.txt")).expect("the corpus");
    let mut all: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            all.push(Case { name: name.to_owned(), flags: Vec::new(), fails: None, differs: false, files: Vec::new() });
            continue;
        }
        let Some(case) = all.last_mut() else { continue };
        if let Some(head) = line.strip_prefix("--- ") {
            // A name may have blanks; a mode is the last word, in digits.
            let moded = head.rsplit_once(' ').and_then(|(p, m)| Some((p, u32::from_str_radix(m, 8).ok()?)));
            let (path, mode) = moded.unwrap_or((head, 0o644));
            case.files.push((path.to_owned(), mode, String::new()));
        } else if let Some((_, _, content)) = case.files.last_mut() {
            content.push_str(line);
            content.push('\n');
        } else if let Some(flags) = line.strip_prefix("flags: ") {
            case.flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if line.starts_with("differs: ") {
            case.differs = true;
        } else if let Some(text) = line.strip_prefix("fails: ") {
            case.fails = Some(text.to_owned());
        }
    }
    all
}

/// Writes a case's files.
fn write(case: &Case) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for (name, mode, content) in &case.files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("made");
        // A link is written as its target.
        if let Some(target) = content.strip_prefix("-> ").filter(|_| *mode == 0o777) {
            std::os::unix::fs::symlink(target.trim_end(), &path).expect("linked");
            continue;
        }
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode)).expect("set");
    }
    folder
}

/// A file tree as lines, by path.
fn tree(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bytes);
    let mut all = BTreeMap::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("entry");
        let path = entry.path().expect("path").to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        if path.is_empty() {
            continue;
        }
        let head = entry.header();
        let kind = match head.entry_type() {
            tar::EntryType::Directory => "d",
            tar::EntryType::Symlink => "l",
            tar::EntryType::Link => "h",
            tar::EntryType::Fifo => "p",
            _ => "f",
        };
        let mode = head.mode().expect("mode") & 0o7777;
        let (uid, gid) = (head.uid().expect("uid"), head.gid().expect("gid"));
        let link = entry.link_name().expect("link").map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
        let link = if kind == "h" { link.trim_start_matches('/').to_owned() } else { link };
        let mode = if kind == "l" { 0o777 } else { mode };
        let mut content = String::new();
        if kind == "f" {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("content");
            content = match String::from_utf8(bytes) {
                Ok(text) if text.len() <= 200 => format!("{text:?}"),
                Ok(text) => format!("{} bytes", text.len()),
                Err(e) => format!("{} bytes", e.as_bytes().len()),
            };
        }
        all.insert(path, format!("{kind} {mode:o} {uid}:{gid} {link}{content}"));
    }
    all
}

/// What a configuration says, without what is empty.
fn config(json: &str) -> Vec<String> {
    let all: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let keys = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "OnBuild",
        "StopSignal",
        "Healthcheck",
        "Shell",
    ];
    let empty = |v: &serde_json::Value| {
        v.is_null() || *v == serde_json::json!("") || *v == serde_json::json!([]) || *v == serde_json::json!({})
    };
    keys.iter().filter(|k| !empty(&all[**k])).map(|k| format!("{k}: {}", in_order(&all[*k]))).collect()
}

/// With members by name, however maps are kept: a feature of serde_json that another crate may have switched on.
fn in_order(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            Value::Object(sorted.into_iter().map(|(name, value)| (name.clone(), in_order(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(in_order).collect()),
        other => other.clone(),
    }
}

/// Runs a client with arguments.
type Client<'a> = Box<dyn Fn(&[&str]) -> Outcome + 'a>;

/// A daemon that builds.
struct Place<'a> {
    build: Client<'a>,
    docker: Client<'a>,
    base: BTreeMap<String, String>,
}

impl Place<'_> {
    fn export(&self, flags: &[String], context: &Path) -> Result<BTreeMap<String, String>, String> {
        let out = tempfile::tempdir().expect("folder");
        let file = out.path().join("tree.tar");
        let wanted = format!("type=tar,dest={}", file.display());
        let mut words: Vec<&str> = flags.iter().map(String::as_str).collect();
        words.extend(["-o", &wanted, context.to_str().expect("text")]);
        let done = (self.build)(&words);
        if done.code != 0 {
            return Err(done.stderr);
        }
        Ok(tree(&std::fs::read(&file).expect("the tree")))
    }

    /// What a case gives, as lines.
    fn give(&self, case: &Case) -> Vec<String> {
        let context = write(case);
        let made = self.export(&case.flags, context.path());
        if let Some(text) = &case.fails {
            return match made {
                Ok(_) => vec!["built".to_owned()],
                Err(e) if e.contains(text) => vec![format!("fails: {text}")],
                Err(e) => vec![format!("fails otherwise: {e}")],
            };
        }
        let made = match made {
            Ok(made) => made,
            Err(e) => return vec![format!("fails: {e}")],
        };
        let name = format!("{BASE}-case");
        let mut words: Vec<&str> = case.flags.iter().map(String::as_str).collect();
        words.extend(["-t", &name, context.path().to_str().expect("text")]);
        let built = (self.build)(&words);
        if built.code != 0 {
            return vec![format!("fails: {}", built.stderr)];
        }
        let mut lines = config(&(self.docker)(&["image", "inspect", "-f", "{{json .Config}}", &name]).ok());
        (self.docker)(&["image", "rm", "-f", &name]).ok();
        // What the base has is told only where it changed.
        lines.extend(made.iter().filter(|(p, l)| self.base.get(*p) != Some(l)).map(|(p, l)| format!("/{p} {l}")));
        if case.flags.is_empty() || made.contains_key("bin/busybox") {
            let gone = self.base.keys().filter(|p| made.contains_key("bin/busybox") && !made.contains_key(*p));
            lines.extend(gone.map(|p| format!("/{p} is gone")));
        }
        lines
    }
}

fn place<'a>(build: impl Fn(&[&str]) -> Outcome + 'a, docker: impl Fn(&[&str]) -> Outcome + 'a) -> Place<'a> {
    let mut place = Place { build: Box::new(build), docker: Box::new(docker), base: BTreeMap::new() };
    let context = testkit::build::context(&[("Dockerfile", &format!("FROM {BASE}\n"))]);
    place.base = place.export(&[], context.path()).expect("the base builds");
    place
}

#[test]
fn what_is_built_is_what_is_stored() {
    let daemon = Daemon::with_image();
    daemon.docker(&["tag", "busybox", BASE]).ok();
    let ours = place(
        |words| {
            let mut all = vec!["build"];
            all.extend(words);
            daemon.run(Cli::Ours, &all)
        },
        |words| daemon.docker(words),
    );
    let cases = cases();
    let made: Vec<(String, Vec<String>)> = cases.iter().map(|c| (c.name.clone(), ours.give(c))).collect();
    for (name, lines) in &made {
        assert!(!lines.iter().any(|line| line.starts_with("fails otherwise")), "{name}: {lines:?}");
    }
    let text: String = made.iter().map(|(name, lines)| format!("=== {name}\n{}\n", lines.join("\n"))).collect();
    let stored = folder().join("build.expected");
    if std::env::var_os("WHARF_CORPUS_WRITE").is_some() {
        std::fs::write(&stored, &text).expect("written");
    }
    if let Some(host) = std::env::var_os("WHARF_CORPUS_PEER") {
        compare(&daemon, &host.to_string_lossy(), &cases, &made);
    }
    let stored = std::fs::read_to_string(&stored).expect("what is expected");
    let split = |text: &str| -> BTreeMap<String, String> {
        let parts = text.split("=== ").filter_map(|p| p.split_once('\n'));
        parts.map(|(name, lines)| (name.to_owned(), lines.to_owned())).collect()
    };
    assert_eq!(split(&text), split(&stored));
}

/// Builds every case by a peer as well, and tells all differences.
fn compare(daemon: &Daemon, host: &str, cases: &[Case], made: &[(String, Vec<String>)]) {
    let plugin = buildx().expect("a peer is compared by buildx");
    let config = tempfile::tempdir().expect("folder");
    let command = |program: &Path| {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", host).env("DOCKER_CONFIG", config.path()).env("BUILDX_CONFIG", config.path());
        command.stdin(Stdio::null());
        command
    };
    let cli = Cli::Ours.program().expect("ours");
    let docker = |words: &[&str]| {
        let mut command = command(&cli);
        command.args(words);
        testkit::run(command)
    };
    let file = config.path().join("base.tar");
    daemon.docker(&["save", "-o", file.to_str().expect("text"), BASE]).ok();
    docker(&["load", "-i", file.to_str().expect("text")]).ok();
    let peer = place(
        |words| {
            let mut command = command(&plugin);
            command.args(["build", "--progress=plain", "--provenance=false"]).args(words);
            testkit::run(command)
        },
        docker,
    );
    let mut differences = String::new();
    for (case, (_, ours)) in cases.iter().zip(made) {
        if case.differs {
            continue;
        }
        let theirs = peer.give(case);
        if theirs != *ours {
            differences.push_str(&format!(
                "=== {}\nours:\n{}\ntheirs:\n{}\n",
                case.name,
                ours.join("\n"),
                theirs.join("\n")
            ));
        }
    }
    docker(&["image", "rm", "-f", BASE]).ok();
    assert!(differences.is_empty(), "{differences}");
}
