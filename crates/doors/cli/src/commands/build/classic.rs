//! The classic builder: the context goes as an archive to `POST /build`.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use wharf_api_client::{Query, Request};
use wharf_api_types::Progress;
use wharf_archive::{Entry, EntryKind, Time, Writer};
use wharf_dockerfile::ignore::{self, Patterns};

use crate::commands::progress;
use crate::exit::{Exit, path_error};
use crate::parse::Matches;
use crate::shell::Shell;

/// `docker build` of a folder, an address, or standard input.
pub fn build(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (source, name) = (m.first(), m.text("file"));
    if source == "-" && name.is_empty() {
        return build_archive(shell, m, &mut BufReader::new(io::stdin().lock()));
    }
    let mut query = query(m)?;
    let mut told = Told { quiet: m.bool("quiet"), image: String::new() };
    let client = shell.client()?;
    if super::plan::is_remote(source) {
        query = query.with("remote", source).with_some("dockerfile", name);
        let mut answer = client.open(Request::post("/build").query(query))?;
        progress::each(&mut answer, |p| told.take(shell, &p))?;
        return told.finish(shell, m);
    }
    let context = Context::open(Path::new(source), name)?;
    let query = query.with_some("dockerfile", &context.dockerfile);
    let (mut reader, writer) = io::pipe().map_err(|e| Exit::new(e.to_string()))?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || context.pack(writer));
        let opened = client.open(Request::post("/build").query(query).stream("application/x-tar", &mut reader));
        drop(reader);
        let packed = packing.join().map_err(|_| Exit::new("packing the context was interrupted"))?;
        let mut answer = opened?;
        let shown = progress::each(&mut answer, |p| told.take(shell, &p));
        // A builder that refused the build reads no context; its reason counts.
        shown.and(packed)
    })?;
    told.finish(shell, m)
}

/// `docker build -`: an archive, or a Dockerfile alone.
pub fn build_archive(shell: &mut Shell, m: &Matches, input: &mut dyn io::BufRead) -> Result<(), Exit> {
    let query = query(m)?.with_some("dockerfile", m.text("file"));
    let mut told = Told { quiet: m.bool("quiet"), image: String::new() };
    let mut archive = of_stdin(input)?;
    let request = Request::post("/build").query(query).stream("application/x-tar", &mut archive);
    let mut answer = shell.client()?.open(request)?;
    progress::each(&mut answer, |p| told.take(shell, &p))?;
    told.finish(shell, m)
}

/// What the daemon says of a build.
struct Told {
    quiet: bool,
    image: String,
}

impl Told {
    fn take(&mut self, shell: &Shell, p: &Progress) -> Result<(), Exit> {
        if let Some(id) = p.aux.as_ref().and_then(|a| a.get("ID")).and_then(|id| id.as_str()) {
            id.clone_into(&mut self.image);
        }
        if self.quiet { Ok(()) } else { shell.print(&p.stream) }
    }

    fn finish(self, shell: &Shell, m: &Matches) -> Result<(), Exit> {
        if !m.text("iidfile").is_empty() {
            let path = m.text("iidfile");
            fs::write(path, &self.image).map_err(|e| path_error("open", path, &e))?;
        }
        if self.quiet { shell.line(&self.image) } else { Ok(()) }
    }
}

fn query(m: &Matches) -> Result<Query, Exit> {
    super::plan::refuse(m)?;
    if m.changed("cache-from") {
        return Err(Exit::new("--cache-from is not supported by the classic builder"));
    }
    let pairs = |list: Vec<&str>, from_environment: bool| {
        let mut map = serde_json::Map::new();
        for entry in list {
            match entry.split_once('=') {
                Some((k, v)) => drop(map.insert(k.to_owned(), v.into())),
                None if from_environment => {
                    let value = std::env::var(entry).ok();
                    map.insert(entry.to_owned(), value.into());
                }
                None => drop(map.insert(entry.to_owned(), "".into())),
            }
        }
        if map.is_empty() { String::new() } else { serde_json::Value::Object(map).to_string() }
    };
    let mut query = Query::new();
    for tag in m.list("tag") {
        crate::reference::parse(tag)
            .map_err(|e| Exit::new(format!("invalid argument {tag:?} for \"-t, --tag\" flag: {e}")))?;
        query = query.with("t", tag);
    }
    for host in m.list("add-host") {
        query = query.with("extrahosts", host);
    }
    let network = m.text("network");
    query = query
        .with_some("buildargs", &pairs(m.list("build-arg"), true))
        .with_some("labels", &pairs(m.list("label"), false))
        .with_some("target", m.text("target"))
        .with_some("platform", &m.list("platform").join(","))
        .with_some("cgroupparent", m.text("cgroup-parent"))
        .with_some("networkmode", if network == "default" { "" } else { network });
    for (flag, key) in [("no-cache", "nocache"), ("pull", "pull"), ("quiet", "q")] {
        if m.bool(flag) {
            query = query.with(key, "1");
        }
    }
    if m.bytes("shm-size") > 0 {
        query = query.with("shmsize", &m.bytes("shm-size").to_string());
    }
    let mut limits = Vec::new();
    for text in m.list("ulimit") {
        let wrong = || Exit::new(format!("invalid ulimit argument: {text}"));
        let (name, range) = text.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = range.split_once(':').unwrap_or((range, range));
        let number = |t: &str| t.parse::<i64>().map_err(|_| wrong());
        limits.push(serde_json::json!({"Name": name, "Soft": number(soft)?, "Hard": number(hard)?}));
    }
    if !limits.is_empty() {
        query = query.with("ulimits", &serde_json::Value::Array(limits).to_string());
    }
    Ok(query)
}

/// Whether bytes begin an archive, plain or compressed.
pub fn is_archive(start: &[u8]) -> bool {
    let compressed = start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    compressed || start.get(257..262) == Some(b"ustar")
}

/// Standard input is an archive, or a Dockerfile alone.
fn of_stdin(input: &mut dyn io::BufRead) -> Result<Box<dyn Read + '_>, Exit> {
    let failed = |e: io::Error| Exit::new(e.to_string());
    let mut start = Vec::new();
    io::copy(&mut Read::take(&mut *input, 512), &mut start).map_err(failed)?;
    if is_archive(&start) {
        return Ok(Box::new(io::Cursor::new(start).chain(input)));
    }
    input.read_to_end(&mut start).map_err(failed)?;
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive);
    let entry =
        Entry::plain("Dockerfile", EntryKind::File, 0o644, start.len() as u64, Time { seconds: 0, nanoseconds: 0 });
    writer.entry(&entry, &mut start.as_slice()).and_then(|()| writer.finish()).map_err(|e| Exit::new(e.to_string()))?;
    Ok(Box::new(io::Cursor::new(archive)))
}

/// A folder to send.
struct Context {
    root: PathBuf,
    dockerfile: String,
    /// A Dockerfile that is not in the folder, under a name of its own.
    outside: Option<Vec<u8>>,
    ignore: Patterns,
}

impl Context {
    fn open(root: &Path, name: &str) -> Result<Self, Exit> {
        let shown = root.display();
        let lost = |_| Exit::new(format!("unable to prepare context: path {:?} not found", shown.to_string()));
        let full = root.canonicalize().map_err(lost)?;
        if !full.is_dir() {
            return Err(Exit::new(format!("unable to prepare context: context must be a directory: {shown}")));
        }
        let mut context =
            Self { root: full.clone(), dockerfile: String::new(), outside: None, ignore: Patterns::default() };
        if name == "-" {
            let mut text = Vec::new();
            io::stdin().lock().read_to_end(&mut text).map_err(|e| Exit::new(e.to_string()))?;
            context.take_outside(text);
        } else if !name.is_empty() {
            let path = Path::new(name).canonicalize().or_else(|_| full.join(name).canonicalize());
            let path = path.map_err(|_| {
                Exit::new(format!("unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {name}: no such file or directory"))
            })?;
            match path.strip_prefix(&full) {
                Ok(inner) => context.dockerfile = inner.to_string_lossy().into_owned(),
                Err(_) => context.take_outside(fs::read(&path).map_err(|e| path_error("open", name, &e))?),
            }
        }
        if name.is_empty() && !full.join("Dockerfile").exists() {
            // Docker's client takes this one too.
            if !full.join("dockerfile").exists() {
                let path = full.join("Dockerfile");
                return Err(Exit::new(format!(
                    "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or directory",
                    path.display()
                )));
            }
            context.dockerfile = "dockerfile".to_owned();
        }
        let own = if context.dockerfile.is_empty() { "Dockerfile" } else { context.dockerfile.as_str() };
        let named = full.join(format!("{own}.dockerignore"));
        let file = if named.exists() { named } else { full.join(".dockerignore") };
        if let Ok(text) = fs::read(&file) {
            let patterns = ignore::read(&String::from_utf8_lossy(&text));
            context.ignore =
                Patterns::new(&patterns).map_err(|e| Exit::new(format!("error reading .dockerignore: {e}")))?;
        }
        Ok(context)
    }

    fn take_outside(&mut self, text: Vec<u8>) {
        self.dockerfile = format!(".dockerfile.{}", std::process::id());
        self.outside = Some(text);
    }

    fn pack(&self, out: impl Write) -> Result<(), Exit> {
        let mut out = io::BufWriter::with_capacity(256 << 10, out);
        let mut writer = Writer::new(&mut out);
        let failed = |e: &dyn std::error::Error| Exit::new(format!("error building the context: {e}"));
        if let Some(text) = &self.outside {
            let entry = Entry::plain(
                &self.dockerfile,
                EntryKind::File,
                0o600,
                text.len() as u64,
                Time { seconds: 0, nanoseconds: 0 },
            );
            writer.entry(&entry, &mut text.as_slice()).map_err(|e| failed(&e))?;
        }
        self.folder(Path::new(""), &mut writer).map_err(|e| failed(&e))?;
        writer.finish().map_err(|e| failed(&e))?;
        out.flush().map_err(|e| failed(&e))
    }

    fn folder(&self, at: &Path, writer: &mut Writer<'_>) -> io::Result<()> {
        let mut names: Vec<_> =
            fs::read_dir(self.root.join(at))?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        for name in names {
            let path = at.join(&name);
            let text = path.to_string_lossy();
            let full = self.root.join(&path);
            let meta = fs::symlink_metadata(&full)?;
            let needed = text == self.dockerfile
                || text == "Dockerfile"
                || text == ".dockerignore"
                || text.ends_with(".dockerignore");
            let ignored = self.ignore.matches(&text) && !needed;
            let leads_to_file = Path::new(&self.dockerfile).starts_with(&path);
            if ignored && !(meta.is_dir() && (self.ignore.has_exceptions() || leads_to_file)) {
                continue;
            }
            if !ignored {
                write_entry(writer, &path, &full, &meta)?;
            }
            if meta.is_dir() {
                self.folder(&path, writer)?;
            }
        }
        Ok(())
    }
}

fn write_entry(writer: &mut Writer<'_>, path: &Path, full: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => EntryKind::Directory,
        () if kind.is_symlink() => EntryKind::Symlink,
        () if kind.is_file() => EntryKind::File,
        () if kind.is_fifo() => EntryKind::Fifo,
        () if kind.is_char_device() => EntryKind::Character,
        () if kind.is_block_device() => EntryKind::Block,
        // A socket cannot be sent.
        () => return Ok(()),
    };
    let size = if kind == EntryKind::File { meta.len() } else { 0 };
    let time = Time { seconds: meta.mtime(), nanoseconds: u32::try_from(meta.mtime_nsec()).unwrap_or(0) };
    let mut entry = Entry::plain("", kind, meta.mode() & 0o7777, size, time);
    entry.name = path.as_os_str().as_bytes().to_vec();
    if kind == EntryKind::Directory {
        entry.name.push(b'/');
    }
    if kind == EntryKind::Symlink {
        entry.link = fs::read_link(full)?.as_os_str().as_bytes().to_vec();
    }
    let device = meta.rdev();
    entry.device = (rustix::fs::major(device), rustix::fs::minor(device));
    let wrong = |e: wharf_archive::ArchiveError| io::Error::other(e);
    if kind == EntryKind::File {
        // What grows or shrinks while it is read keeps the size it had.
        let mut file = File::open(full)?.take(size);
        return writer.entry(&entry, &mut file).map_err(wrong);
    }
    writer.entry(&entry, &mut io::empty()).map_err(wrong)
}
