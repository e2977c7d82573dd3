//! `docker cp`.
//!
//! Archives from a container are hostile: they are extracted beneath a descriptor of the destination's folder, with
//! names that were rewritten here. Where things land follows `cp -a`, as moby's pkg/archive describes it.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use base64::Engine;
use wharf_api_client::{Chunks, Client, Query, Request};
use wharf_api_types::PathStat;
use wharf_archive::{Copying, Entry, EntryKind, Time, Writer, copy_into};

use super::path as api_path;
use crate::exit::{Exit, go_text, path_error};
use crate::format::size;
use crate::parse::Matches;
use crate::shell::Shell;
use crate::stream;

/// Go's `os.ModeDir` and `os.ModeSymlink`.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;

/// Splits `container:path`; a path of this machine has no container.
fn split(text: &str) -> (&str, &str) {
    if text.starts_with('/') {
        return ("", text);
    }
    match text.split_once(':') {
        Some((c, p)) if !c.starts_with('.') => (c, p),
        _ => ("", text),
    }
}

/// `docker cp`.
pub fn copy(shell: &mut Shell, m: &Matches) -> Result<(), Exit> {
    let (source, target) = (m.args[0].as_str(), m.args[1].as_str());
    for (text, name) in [(source, "source"), (target, "destination")] {
        if text.is_empty() {
            return Err(Exit::new(format!("{name} can not be empty")));
        }
    }
    let ((from, from_path), (to, to_path)) = (split(source), split(target));
    let options = Options { archive: m.bool("archive"), follow: m.bool("follow-link"), quiet: m.bool("quiet") };
    match (from, to) {
        ("", "") => Err(Exit::new("must specify at least one container source")),
        (from, "") => from_container(shell, from, from_path, to_path, &options),
        ("", to) => to_container(shell, from_path, to, to_path, &options),
        _ => Err(Exit::new("copying between containers is not supported")),
    }
}

struct Options {
    archive: bool,
    follow: bool,
    quiet: bool,
}

/// Where the first part of an archive's names goes.
#[derive(Debug, PartialEq, Eq)]
struct Landing {
    folder: String,
    /// The new first part, if it is renamed.
    name: Option<String>,
}

/// Says where a source lands. `there` is whether the target is a folder, if it exists.
fn landing(source_is_folder: bool, target: &str, there: Option<bool>) -> Result<Landing, Exit> {
    let asserts_folder = target.ends_with('/') || target.ends_with("/.") || target == ".";
    let renamed = || {
        let trimmed = target.trim_end_matches('/');
        let (folder, name) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
        let folder = if folder.is_empty() { "/" } else { folder };
        Landing { folder: folder.to_owned(), name: Some(name.to_owned()) }
    };
    match there {
        Some(true) => Ok(Landing { folder: target.to_owned(), name: None }),
        Some(false) if source_is_folder => Err(Exit::new("cannot copy directory")),
        Some(false) if asserts_folder => Err(Exit::new("not a directory")),
        None if !source_is_folder && asserts_folder => Err(Exit::new("no such directory")),
        _ => Ok(renamed()),
    }
}

fn stat_of(header: Option<&str>) -> Option<PathStat> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(header?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn stat(client: &Client, container: &str, path: &str) -> Result<Option<PathStat>, Exit> {
    let request = Request::new("HEAD", api_path("containers", container, "/archive"));
    match client.call(request.query(Query::new().with("path", path))) {
        Ok(reply) => Ok(stat_of(reply.head.header("x-docker-container-path-stat"))),
        Err(e) if e.status() == Some(404) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Resolves the target of a link in a container against the link's folder.
fn link_target(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let folder = link.trim_end_matches('/').rsplit_once('/').map_or("", |p| p.0);
    format!("{folder}/{target}")
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The last part of a path as the daemon names an archive's first part: `.` where the path ends in `/.`.
fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed.rsplit('/').next().unwrap_or(trimmed) }
}

fn from_container(shell: &Shell, container: &str, path: &str, target: &str, o: &Options) -> Result<(), Exit> {
    let client = shell.client()?;
    let mut path = absolute(path);
    if o.follow
        && let Some(s) = stat(client, container, &path)?
        && s.mode & SYMLINK != 0
    {
        path = link_target(&path, &s.link_target);
    }
    let request = Request::get(api_path("containers", container, "/archive"));
    let mut answer = client.open(request.query(Query::new().with("path", &path)))?;
    if target == "-" {
        return stream::copy(&mut answer, true);
    }
    refuse_device(target)?;
    let is_folder =
        stat_of(answer.head.header("x-docker-container-path-stat")).is_some_and(|s| s.mode & DIRECTORY != 0);
    let there = fs::metadata(target).ok().map(|t| t.is_dir());
    let landing = landing(is_folder, target, there)?;
    let folder = File::open(&landing.folder).map_err(|_| {
        Exit::new(format!("invalid output path: directory {} does not exist", crate::value::quoted(&landing.folder)))
    })?;
    let owner = (!o.archive).then(|| (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    let old = base(&path).as_bytes();
    let renamed = landing.name.as_ref().map(|new| (old, new.as_bytes()));
    let mut input = BufReader::with_capacity(1 << 20, Counted { inner: &mut answer, count: 0 });
    let how = Copying { owner, keep_kinds: false, renamed, ..Copying::default() };
    copy_into(&mut input, OwnedFd::from(folder), Path::new(""), how).map_err(|e| Exit::new(chain(&e)))?;
    // What follows the archive's end mark belongs to it.
    io::copy(&mut input, &mut io::sink())?;
    let copied = input.get_ref().count;
    if !o.quiet {
        shell.warn(&format!("Successfully copied {} to {target}", size::decimal_short(copied as f64)));
    }
    Ok(())
}

/// A device is no place to copy to: extracting would put a file in its place, for everybody who uses it.
fn refuse_device(target: &str) -> Result<(), Exit> {
    let kind = fs::metadata(target).map(|there| there.file_type());
    if !kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device()) {
        return Ok(());
    }
    let target = crate::value::quoted(target);
    Err(Exit::new(format!("invalid output path: {target} must be a directory or a regular file: got a device")))
}

fn chain(e: &dyn std::error::Error) -> String {
    wharf_error::Chain(e).to_string()
}

fn to_container(shell: &Shell, source: &str, container: &str, path: &str, o: &Options) -> Result<(), Exit> {
    let client = shell.client()?;
    let mut path = absolute(path);
    let local = match source {
        "-" => None,
        s if o.follow => Some(fs::metadata(s).map_err(|e| path_error("stat", s, &e))?),
        s => Some(fs::symlink_metadata(s.trim_end_matches('/')).map_err(|e| path_error("lstat", s, &e))?),
    };
    let mut there = stat(client, container, &path)?;
    if let Some(s) = there.clone().filter(|s| s.mode & SYMLINK != 0) {
        path = link_target(&path, &s.link_target);
        there = stat(client, container, &path)?;
    }
    let is_folder = there.as_ref().map(|s| s.mode & DIRECTORY != 0);
    let put = |folder: &str| {
        let query = Query::new().with("noOverwriteDirNonDir", "true").with("path", folder);
        let query = if o.archive { query.with("copyUIDGID", "true") } else { query };
        Request::new("PUT", api_path("containers", container, "/archive")).query(query)
    };
    let Some(local) = local else {
        if is_folder == Some(false) {
            return Err(Exit::new(format!(
                "destination {} must be a directory",
                crate::value::quoted(&format!("{container}:{path}"))
            )));
        }
        let mut input = io::stdin().lock();
        return Ok(client.call(put(&path).stream("application/x-tar", &mut input)).map(drop)?);
    };
    let landing = landing(local.is_dir(), &path, is_folder)?;
    let name = match (&landing.name, base(source)) {
        (Some(name), _) => name.clone(),
        (None, "." | "..") => ".".to_owned(),
        (None, b) => b.to_owned(),
    };
    let (mut count, mut failure) = (0, None);
    let mut body = |chunks: &mut Chunks<'_>| {
        pack(Path::new(source), &name, &local, chunks).map_err(|e| {
            failure = Some(e);
            io::Error::other("the archive is not complete")
        })?;
        count = chunks.count();
        Ok(())
    };
    match (client.call(put(&landing.folder).written("application/x-tar", &mut body)), failure) {
        (Err(wharf_api_client::Error::Source(_)), Some(failure)) => return Err(failure),
        (sent, _) => drop(sent?),
    }
    if !o.quiet {
        let amount = size::decimal_short(count as f64);
        shell.warn(&format!("Successfully copied {amount} to {container}:{path}"));
    }
    Ok(())
}

/// Counts the bytes of an archive on its way: what Docker tells as copied.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count += n as u64;
        Ok(n)
    }
}

/// Packs a file or a tree under a new first name.
fn pack(root: &Path, name: &str, metadata: &Metadata, out: &mut Chunks<'_>) -> Result<(), Exit> {
    pack_one(out, root, name.as_bytes(), metadata)?;
    Writer::new(out).finish().map_err(|e| Exit::new(chain(&e)))
}

fn pack_one(out: &mut Chunks<'_>, path: &Path, name: &[u8], metadata: &Metadata) -> Result<(), Exit> {
    let shown = path.to_string_lossy();
    let kind = metadata.file_type();
    let entry_kind = match kind {
        k if k.is_dir() => EntryKind::Directory,
        k if k.is_symlink() => EntryKind::Symlink,
        k if k.is_file() => EntryKind::File,
        k if k.is_fifo() => EntryKind::Fifo,
        k if k.is_char_device() => EntryKind::Character,
        k if k.is_block_device() => EntryKind::Block,
        // Sockets cannot be archived.
        _ => return Ok(()),
    };
    let modified = Time { seconds: metadata.mtime(), nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) };
    let size = if entry_kind == EntryKind::File { metadata.len() } else { 0 };
    let mut entry = Entry::plain("", entry_kind, metadata.mode() & 0o7777, size, modified);
    entry.name = name.to_vec();
    (entry.uid, entry.gid) = (metadata.uid(), metadata.gid());
    if matches!(entry_kind, EntryKind::Character | EntryKind::Block) {
        entry.device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    }
    let bare =
        |entry: &Entry, out: &mut Chunks<'_>| Writer::new(out).head(entry).map(drop).map_err(|e| Exit::new(chain(&e)));
    match entry_kind {
        EntryKind::File => {
            let file = File::open(path).map_err(|e| path_error("open", &shown, &e))?;
            bare(&entry, out)?;
            if size > 0 {
                out.file(&file, size).map_err(|e| path_error("read", &shown, &e))?;
                Writer::new(out).pad(size).map_err(|e| Exit::new(chain(&e)))?;
            }
            Ok(())
        }
        EntryKind::Symlink => {
            let link = fs::read_link(path).map_err(|e| path_error("readlink", &shown, &e))?;
            entry.link = link.as_os_str().as_bytes().to_vec();
            bare(&entry, out)
        }
        EntryKind::Directory => {
            entry.name.push(b'/');
            bare(&entry, out)?;
            let mut children: Vec<_> = fs::read_dir(path)
                .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                .map_err(|e| Exit::new(format!("reading {shown}: {}", go_text(&e))))?;
            children.sort_by_key(fs::DirEntry::file_name);
            for child in children {
                let metadata = fs::symlink_metadata(child.path())
                    .map_err(|e| path_error("lstat", &child.path().to_string_lossy(), &e))?;
                let name = [name, b"/", child.file_name().as_bytes()].concat();
                pack_one(out, &child.path(), &name, &metadata)?;
            }
            Ok(())
        }
        _ => bare(&entry, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_land_where_cp_puts_them() {
        let at = |folder: &str, name: Option<&str>| Landing { folder: folder.into(), name: name.map(str::to_owned) };
        assert_eq!(landing(false, "/tmp", Some(true)), Ok(at("/tmp", None)));
        assert_eq!(landing(false, "/tmp/x", None), Ok(at("/tmp", Some("x"))));
        assert_eq!(landing(true, "/x", None), Ok(at("/", Some("x"))));
        assert_eq!(landing(true, "x/", None), Ok(at(".", Some("x"))));
        let message = |r: Result<Landing, Exit>| r.unwrap_err().message;
        assert_eq!(message(landing(true, "/f", Some(false))), "cannot copy directory");
        assert_eq!(message(landing(false, "/f/", Some(false))), "not a directory");
        assert_eq!(message(landing(false, "/n/", None)), "no such directory");
    }
}
