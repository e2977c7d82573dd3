//! What a command line asks the builder for, as data: attributes of the front end, results and where they go, and what
//! the client serves meanwhile.
//!
//! Source: docker/buildx 0.29 `commands/build.go`, `build/opt.go`, `util/buildflags`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wharf_proto_buildkit::control::{CacheOptionsEntry, Exporter};

use crate::exit::{Exit, go_text};
use crate::parse::Matches;
use crate::value::split_csv;

/// Limits that no step of this builder takes; asked for, they are refused rather than ignored.
const REFUSED: &[&str] = &[
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpuset-cpus",
    "cpuset-mems",
    "isolation",
    "memory",
    "memory-swap",
    "security-opt",
    "squash",
];

/// The largest secret.
const SECRET_LIMIT: u64 = 500 << 10;

/// Where a result goes on this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the daemon keeps it.
    Daemon,
    /// Standard output.
    Output,
    /// A file.
    File(PathBuf),
    /// A folder.
    Folder(PathBuf),
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// A variable.
    Variable(String),
}

/// What comes in by standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    #[default]
    None,
    /// The Dockerfile.
    Dockerfile,
    /// An archive, or a Dockerfile alone.
    Context,
}

/// A build to ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// For the front end.
    pub attrs: BTreeMap<String, String>,
    /// The results.
    pub exporters: Vec<Exporter>,
    /// Where each of them goes.
    pub places: Vec<Place>,
    /// Folders that the daemon may ask for, by name.
    pub folders: BTreeMap<String, PathBuf>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of agents by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// Where cached steps are looked for.
    pub imports: Vec<CacheOptionsEntry>,
    /// Where cached steps are put.
    pub exports: Vec<CacheOptionsEntry>,
    /// Folders of blobs that the daemon may read and write, by id.
    pub stores: BTreeMap<String, PathBuf>,
    /// What steps may do.
    pub entitlements: Vec<String>,
    /// What comes in by standard input.
    pub input: Input,
}

/// `key=value` fields with commas between.
pub fn fields(text: &str) -> Result<Vec<(String, String)>, Exit> {
    let parts = split_csv(text).map_err(Exit::new)?;
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => Err(Exit::new(format!("invalid field '{field}' must be a key=value pair"))),
    };
    parts.into_iter().map(split).collect()
}

/// Refuses what no builder here does.
///
/// # Errors
/// Such a flag is given.
pub fn refuse(m: &Matches) -> Result<(), Exit> {
    match REFUSED.iter().find(|f| m.changed(f)) {
        Some(flag) => Err(Exit::new(format!("--{flag} is not supported by this builder"))),
        None => Ok(()),
    }
}

/// Whether a context is an address.
pub fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"].iter().any(|p| source.starts_with(p))
}

impl Plan {
    /// Reads the flags.
    ///
    /// # Errors
    /// Buildx's texts for what is no flag's value; a clear one for what this builder cannot do.
    pub fn of(m: &Matches) -> Result<Self, Exit> {
        refuse(m)?;
        let mut plan = Self::default();
        plan.take_attributes(m)?;
        plan.take_attestations(m)?;
        plan.take_context(m)?;
        plan.take_outputs(m)?;
        for text in m.list("secret") {
            let (id, secret) = secret(text)?;
            plan.secrets.insert(id, secret);
        }
        for text in m.list("ssh") {
            plan.take_agent(text)?;
        }
        plan.imports = caches(&m.list("cache-from"), "src")?;
        plan.exports = caches(&m.list("cache-to"), "dest")?;
        // The old way of asking for it.
        let asked = plan.attrs.get("build-arg:BUILDKIT_INLINE_CACHE").is_some_and(|v| ["1", "true"].contains(&&**v));
        if asked && !plan.exports.iter().any(|e| e.r#type == "inline") {
            plan.exports.push(CacheOptionsEntry { r#type: "inline".to_owned(), attrs: BTreeMap::new() });
        }
        plan.take_stores();
        let allowed = m.strings("allow");
        for name in allowed {
            if !["network.host", "security.insecure", "device"].contains(&name.as_str()) {
                return Err(Exit::new(format!("invalid entitlement: {name}")));
            }
            plan.entitlements.push(name);
        }
        Ok(plan)
    }

    fn put(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.attrs.insert(key.into(), value.into());
    }

    fn take_attributes(&mut self, m: &Matches) -> Result<(), Exit> {
        for text in m.list("build-arg") {
            match text.split_once('=') {
                Some((key, value)) => self.put(format!("build-arg:{key}"), value),
                // Without a value it is passed on, if it is set at all.
                None => {
                    if let Ok(value) = std::env::var(text) {
                        self.put(format!("build-arg:{text}"), value);
                    }
                }
            }
        }
        for text in m.list("label") {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            self.put(format!("label:{key}"), value);
        }
        for text in m.list("build-context") {
            self.take_named_context(text)?;
        }
        if !m.text("target").is_empty() {
            self.put("target", m.text("target"));
        }
        let platforms = m.strings("platform");
        for platform in &platforms {
            if platform.split('/').count() > 3 || platform.split('/').any(str::is_empty) {
                return Err(Exit::new(format!("{platform:?}: cannot parse platform specifier: invalid argument")));
            }
        }
        if !platforms.is_empty() {
            self.put("platform", platforms.join(","));
        }
        let mut hosts = Vec::new();
        for text in m.strings("add-host") {
            let wrong = || Exit::new(format!("invalid host {text}"));
            let at = text.find(['=', ':']).ok_or_else(wrong)?;
            let (name, address) = (&text[..at], text[at + 1..].trim_matches(['[', ']']));
            if name.is_empty() || address.is_empty() {
                return Err(wrong());
            }
            hosts.push(format!("{name}={address}"));
        }
        if !hosts.is_empty() {
            self.put("add-hosts", hosts.join(","));
        }
        if m.changed("ulimit") {
            self.put("ulimit", m.list("ulimit").join(","));
        }
        if m.bytes("shm-size") > 0 {
            self.put("shm-size", m.bytes("shm-size").to_string());
        }
        if !m.text("cgroup-parent").is_empty() {
            self.put("cgroup-parent", m.text("cgroup-parent"));
        }
        match m.text("network") {
            "" | "default" => {}
            "host" => {
                self.put("force-network-mode", "host");
                self.entitlements.push("network.host".to_owned());
            }
            "none" => self.put("force-network-mode", "none"),
            other => {
                return Err(Exit::new(format!(
                    "network mode {other:?} not supported by buildkit - you can define a custom network for your builder \
                     using the network driver-opt in buildx create"
                )));
            }
        }
        let stages = m.strings("no-cache-filter");
        if m.bool("no-cache") {
            if !stages.is_empty() {
                return Err(Exit::new("--no-cache and --no-cache-filter are mutually exclusive"));
            }
            self.put("no-cache", "");
        } else if !stages.is_empty() {
            self.put("no-cache", stages.join(","));
        }
        if m.bool("pull") {
            self.put("image-resolve-mode", "pull");
        }
        // The daemon knows of it from the front end's attributes alone.
        if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH")
            && !epoch.is_empty()
            && !self.attrs.contains_key("build-arg:SOURCE_DATE_EPOCH")
        {
            self.put("build-arg:SOURCE_DATE_EPOCH", epoch);
        }
        if m.bool("reproducible") {
            self.attrs.entry("build-arg:SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| "0".to_owned());
        }
        Ok(())
    }

    fn take_named_context(&mut self, text: &str) -> Result<(), Exit> {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Exit::new(format!("invalid context value: {text}, expected key=value")));
        };
        let key = format!("context:{name}");
        let passed = ["docker-image://", "target:"].iter().any(|p| value.starts_with(p));
        if passed || is_remote(value) {
            self.put(key, value);
        } else if value.starts_with("oci-layout://") {
            return Err(Exit::new(format!(
                "build context {name}: OCI layouts as contexts are not supported yet: load it, then use docker-image://"
            )));
        } else {
            let folder = Path::new(value);
            if !folder.is_dir() {
                let text = match folder.metadata() {
                    Ok(_) => "not a directory".to_owned(),
                    Err(e) => format!("stat {value}: {}", go_text(&e)),
                };
                return Err(Exit::new(format!("failed to get build context {name}: {text}")));
            }
            self.folders.insert(name.to_owned(), folder.to_owned());
            self.put(key, format!("local:{name}"));
        }
        Ok(())
    }

    /// Attestations are not made yet; asked for, they are refused.
    fn take_attestations(&mut self, m: &Matches) -> Result<(), Exit> {
        let off = |text: &str| matches!(text, "false" | "0" | "disabled=true");
        for flag in ["provenance", "sbom"] {
            if m.changed(flag) && !off(m.text(flag)) {
                return Err(Exit::new(format!("--{flag}: attestations cannot be made by this builder yet")));
            }
        }
        for text in m.list("attest") {
            let disabled = fields(text)?.iter().any(|(k, v)| k == "disabled" && v == "true");
            if !disabled {
                return Err(Exit::new(format!("--attest {text}: attestations cannot be made by this builder yet")));
            }
        }
        Ok(())
    }

    fn take_context(&mut self, m: &Matches) -> Result<(), Exit> {
        let (source, file) = (m.first(), m.text("file"));
        if source == "-" {
            if file == "-" {
                return Err(Exit::new("invalid argument: can't use stdin for both build context and dockerfile"));
            }
            self.input = Input::Context;
            if !file.is_empty() {
                self.put("filename", file);
            }
            return Ok(());
        }
        if is_remote(source) {
            self.put("context", source);
            if file == "-" {
                self.input = Input::Dockerfile;
            } else if !file.is_empty() {
                self.put("filename", file);
            }
            return Ok(());
        }
        let root = Path::new(source);
        if root.metadata().is_err() {
            return Err(Exit::new(format!("unable to prepare context: path {source:?} not found")));
        }
        if !root.is_dir() {
            return Err(Exit::new(format!("unable to prepare context: context must be a directory: {source}")));
        }
        self.folders.insert("context".to_owned(), root.to_owned());
        if file == "-" {
            self.input = Input::Dockerfile;
            return Ok(());
        }
        if is_remote(file) {
            return Err(Exit::new("a Dockerfile by its address is not supported: fetch it, and give it with --file -"));
        }
        // As Docker's classic client did, a name that is not here is one in the context.
        let file = match file {
            "" => root.join("Dockerfile"),
            name if !Path::new(name).exists() && root.join(name).exists() => root.join(name),
            name => PathBuf::from(name),
        };
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        self.folders.insert("dockerfile".to_owned(), folder);
        self.put("filename", name);
        Ok(())
    }

    fn take_outputs(&mut self, m: &Matches) -> Result<(), Exit> {
        let tags = m.list("tag");
        for tag in &tags {
            crate::reference::parse(tag)
                .map_err(|e| Exit::new(format!("invalid argument {tag:?} for \"-t, --tag\" flag: {e}")))?;
        }
        let name = tags.join(",");
        let mut wanted: Vec<(Exporter, Place)> = m.list("output").into_iter().map(output).collect::<Result<_, _>>()?;
        let (push, load) = (m.bool("push"), m.bool("load"));
        let image = |attrs: &[(&str, &str)]| {
            let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            (Exporter { r#type: "image".to_owned(), attrs }, Place::Daemon)
        };
        if push {
            let mut found = false;
            for (exporter, _) in wanted.iter_mut().filter(|(e, _)| e.r#type == "image") {
                exporter.attrs.insert("push".to_owned(), "true".to_owned());
                found = true;
            }
            if !found {
                wanted.push(image(&[("push", "true")]));
            }
        }
        // What is pushed is here as well.
        if wanted.is_empty() || (load && !wanted.iter().any(|(e, p)| e.r#type == "image" && *p == Place::Daemon)) {
            wanted.push(image(&[]));
        }
        let notes = annotations(m)?;
        for (exporter, _) in &mut wanted {
            let named = ["image", "docker", "oci"].contains(&exporter.r#type.as_str());
            if named && !exporter.attrs.contains_key("name") && !name.is_empty() {
                exporter.attrs.insert("name".to_owned(), name.clone());
            }
            if named {
                exporter.attrs.extend(notes.iter().cloned());
            }
            if named && m.bool("reproducible") {
                exporter.attrs.entry("rewrite-timestamp".to_owned()).or_insert_with(|| "true".to_owned());
            }
            let pushes = exporter.attrs.get("push").is_some_and(|p| p == "true");
            if pushes && !exporter.attrs.contains_key("name") {
                return Err(Exit::new("tag is needed when pushing to registry"));
            }
        }
        if wanted.iter().filter(|(_, p)| *p == Place::Output).count() > 1 {
            return Err(Exit::new("only one output can go to standard output"));
        }
        (self.exporters, self.places) = wanted.into_iter().unzip();
        Ok(())
    }

    /// Caches in folders are read and written through us. One that is not there yet is left out, and told of.
    fn take_stores(&mut self) {
        let stores = &mut self.stores;
        self.imports.retain_mut(|place| {
            let folder_of = in_folder(place);
            let Some(folder) = place.attrs.get("src").filter(|_| folder_of).map(PathBuf::from) else {
                return true;
            };
            if !place.attrs.contains_key("digest") {
                let tag = place.attrs.get("tag").map_or("latest", String::as_str);
                let Some(digest) = super::blobs::tagged(&folder, tag) else {
                    eprintln!("WARNING: local cache import at {} not found", folder.display());
                    return false;
                };
                place.attrs.insert("digest".to_owned(), digest);
            }
            stores.insert(format!("local:{}", folder.display()), folder);
            true
        });
        for place in self.exports.iter().filter(|p| in_folder(p)) {
            if let Some(folder) = place.attrs.get("dest").map(PathBuf::from) {
                stores.insert(format!("local:{}", folder.display()), folder);
            }
        }
    }

    fn take_agent(&mut self, text: &str) -> Result<(), Exit> {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        let path = if paths.is_empty() {
            std::env::var_os("SSH_AUTH_SOCK")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
                .ok_or_else(|| Exit::new("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"))?
        } else {
            PathBuf::from(paths)
        };
        use std::os::unix::fs::FileTypeExt;
        let meta = path.metadata().map_err(|e| Exit::new(format!("stat {}: {}", path.display(), go_text(&e))))?;
        if !meta.file_type().is_socket() {
            return Err(Exit::new(format!(
                "--ssh {text}: key files are not supported, only sockets of agents: add the key to an agent (ssh-add)"
            )));
        }
        self.agents.insert(id.to_owned(), path);
        Ok(())
    }
}

/// One `--output`.
fn output(text: &str) -> Result<(Exporter, Place), Exit> {
    let exporter = |kind: &str| Exporter { r#type: kind.to_owned(), attrs: BTreeMap::new() };
    if text == "-" {
        return to_output(exporter("tar"));
    }
    // A lone path is a folder.
    if !text.contains(['=', ',']) {
        return Ok((exporter("local"), Place::Folder(folder(text)?)));
    }
    let mut attrs: BTreeMap<String, String> = fields(text)?.into_iter().collect();
    let kind = attrs.remove("type").ok_or_else(|| Exit::new("type is required for output"))?;
    let dest = attrs.remove("dest").or_else(|| attrs.remove("destination")).unwrap_or_default();
    let mut exporter = Exporter { r#type: kind, attrs };
    match exporter.r#type.as_str() {
        "local" if dest.is_empty() => Err(Exit::new("dest is required for local output")),
        "local" if dest == "-" => Err(Exit::new("dest cannot be stdout for local output")),
        "local" => Ok((exporter, Place::Folder(folder(&dest)?))),
        "docker" if dest.is_empty() => {
            exporter.r#type = "image".to_owned();
            Ok((exporter, Place::Daemon))
        }
        "tar" | "oci" | "docker" if dest.is_empty() || dest == "-" => to_output(exporter),
        "tar" | "oci" | "docker" => {
            if Path::new(&dest).is_dir() {
                return Err(Exit::new(format!("destination file {dest} is a directory")));
            }
            Ok((exporter, Place::File(PathBuf::from(dest))))
        }
        "registry" => {
            exporter.r#type = "image".to_owned();
            exporter.attrs.entry("push".to_owned()).or_insert_with(|| "true".to_owned());
            Ok((exporter, Place::Daemon))
        }
        // Others are the daemon's to know or not.
        _ => Ok((exporter, Place::Daemon)),
    }
}

fn folder(text: &str) -> Result<PathBuf, Exit> {
    let path = PathBuf::from(text);
    if path.exists() && !path.is_dir() {
        return Err(Exit::new(format!("destination directory should be a directory: {text}")));
    }
    Ok(path)
}

fn to_output(exporter: Exporter) -> Result<(Exporter, Place), Exit> {
    if crate::terminal::stdout_is() {
        let kind = &exporter.r#type;
        return Err(Exit::new(format!("dest file is required for {kind} exporter. refusing to write to console")));
    }
    Ok((exporter, Place::Output))
}

/// `--annotation [LEVEL:]KEY=VALUE` as attributes of an exporter.
fn annotations(m: &Matches) -> Result<Vec<(String, String)>, Exit> {
    let mut all = Vec::new();
    for text in m.list("annotation") {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Exit::new(format!("invalid annotation {text:?}, expected key=value")));
        };
        let levels = ["manifest", "index", "manifest-descriptor", "index-descriptor"];
        match key
            .split_once(':')
            .filter(|(l, _)| l.split(',').all(|l| levels.contains(&l.split('[').next().unwrap_or(l))))
        {
            Some((given, key)) => {
                for level in given.split(',') {
                    all.push((format!("annotation-{level}.{key}"), value.to_owned()));
                }
            }
            None => all.push((format!("annotation.{key}"), value.to_owned())),
        }
    }
    Ok(all)
}

fn secret(text: &str) -> Result<(String, Secret), Exit> {
    let (mut id, mut file, mut variable, mut kind) = (String::new(), String::new(), String::new(), String::new());
    for (key, value) in fields(text)? {
        match key.as_str() {
            "type" if value != "file" && value != "env" => {
                return Err(Exit::new(format!("unsupported secret type {value:?}")));
            }
            "type" => kind = value,
            "id" => id = value,
            "source" | "src" => file = value,
            "env" => variable = value,
            _ => return Err(Exit::new(format!("unexpected key '{key}' in '{key}={value}'"))),
        }
    }
    if id.is_empty() {
        return Err(Exit::new("secret missing id"));
    }
    if kind == "env" && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    if variable.is_empty() && file.is_empty() {
        // The variable of that name comes before the file.
        if kind != "file" && std::env::var_os(&id).is_some() {
            return Ok((id.clone(), Secret::Variable(id)));
        }
        file.clone_from(&id);
    }
    if !variable.is_empty() {
        if !file.is_empty() {
            return Err(Exit::new("specifying both secret source and env is not supported"));
        }
        return Ok((id, Secret::Variable(variable)));
    }
    let meta = Path::new(&file)
        .metadata()
        .map_err(|e| Exit::new(format!("failed to stat {file}: stat {file}: {}", go_text(&e))))?;
    if meta.len() > SECRET_LIMIT {
        return Err(Exit::new(format!("secret {id} too big. max size 500KB")));
    }
    Ok((id, Secret::File(PathBuf::from(file))))
}

/// Whether a cache is a folder of the client.
pub fn in_folder(place: &CacheOptionsEntry) -> bool {
    place.r#type == "local" || (place.r#type == "mounts" && !place.attrs.contains_key("ref"))
}

/// `--cache-from`, `--cache-to`: a lone name is an image.
fn caches(list: &[&str], place: &str) -> Result<Vec<CacheOptionsEntry>, Exit> {
    let mut all = Vec::new();
    for text in list {
        if !text.contains('=') {
            for name in split_csv(text).map_err(Exit::new)? {
                let attrs = [("ref".to_owned(), name)].into();
                all.push(CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
            }
            continue;
        }
        let mut attrs: BTreeMap<String, String> = fields(text)?.into_iter().collect();
        let kind = attrs.remove("type").ok_or_else(|| Exit::new(format!("type required form> {text:?}")))?;
        let entry = CacheOptionsEntry { r#type: kind, attrs };
        if in_folder(&entry) && entry.attrs.get(place).is_none_or(String::is_empty) {
            return Err(Exit::new(format!("{} cache requires a {place}", entry.r#type)));
        }
        all.push(entry);
    }
    Ok(all)
}
