//! File operations: copy, make, remove, unpack.

use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Gid, Mode, OFlags, Timespec, Uid};
use wharf_archive::{Compression, Decoder, Whiteouts};
use wharf_dockerfile::ignore::Patterns;
use wharf_proto_buildkit::pb;
use wharf_snapshot::Snapshot;

use crate::copy::{CopyOptions, ModeChange, copy, wildcards};
use crate::job::{Files, Job, Value};
use crate::tree::{Owner, Tree, set_times};
use crate::{BuildError, merge};

/// A snapshot that is being written to, with its mount.
struct Work {
    snapshot: Option<Snapshot>,
    tree: Tree,
}

/// Something that actions name by number.
enum Slot {
    Value(Value),
    Open(Work),
    Done(Snapshot),
    Taken,
}

struct Run<'a> {
    job: &'a Job,
    slots: Vec<Slot>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Only after a failure is any left.
        for slot in &self.slots {
            if let Slot::Open(Work { snapshot: Some(snapshot), .. }) | Slot::Done(snapshot) = slot {
                // What stays has no owner and goes when the daemon starts.
                let _ = self.job.builder.parts.snapshots.remove(snapshot);
            }
        }
    }
}

/// Carries out all actions of an operation; returns its outputs, committed.
///
/// # Errors
/// [`BuildError`].
pub fn carry_out(job: &Arc<Job>, op: &pb::FileOp, inputs: &[Value]) -> Result<Vec<Snapshot>, BuildError> {
    let mut run = Run { job, slots: inputs.iter().cloned().map(Slot::Value).collect() };
    let mut outputs: Vec<(i64, usize)> = Vec::new();
    for action in &op.actions {
        let mut work = run.base(action.input)?;
        let source = match action.secondary_input {
            n if n < 0 => None,
            n => Some(run.source(n)?),
        };
        let done = act(job, action, &work.tree, source.as_ref());
        let place = run.slots.len();
        if let Err(e) = done {
            run.slots.push(Slot::Open(work));
            return Err(e);
        }
        if action.output >= 0 {
            outputs.push((action.output, place));
            let snapshot = work.snapshot.take().ok_or_else(|| BuildError::invalid("lost snapshot"))?;
            drop(work);
            let committed = job.builder.parts.snapshots.commit(snapshot)?;
            run.slots.push(Slot::Done(committed));
        } else {
            run.slots.push(Slot::Open(work));
        }
    }
    outputs.sort_unstable();
    let mut made = Vec::new();
    for (_, place) in outputs {
        if let Slot::Done(snapshot) = std::mem::replace(&mut run.slots[place], Slot::Taken) {
            made.push(snapshot);
        }
    }
    Ok(made)
}

impl Run<'_> {
    /// What an action works upon.
    fn base(&mut self, index: i64) -> Result<Work, BuildError> {
        let snapshots = &self.job.builder.parts.snapshots;
        let parent = match index {
            n if n < 0 => None,
            n => {
                let slot = usize::try_from(n).ok().and_then(|n| self.slots.get_mut(n));
                let slot = slot.ok_or_else(|| BuildError::invalid(format!("invalid input index {n}")))?;
                match slot {
                    Slot::Open(_) => match std::mem::replace(slot, Slot::Taken) {
                        Slot::Open(work) => return Ok(work),
                        _ => return Err(BuildError::invalid("lost input")),
                    },
                    Slot::Done(snapshot) => Some(snapshot.clone()),
                    Slot::Taken => return Err(BuildError::invalid(format!("input {n} is used twice"))),
                    Slot::Value(value) => {
                        let value = value.clone();
                        match &value.files {
                            Files::Context(_) => Some(merge::as_snapshot(self.job, &value)?),
                            _ => value.snapshot().cloned(),
                        }
                    }
                }
            }
        };
        let snapshot = snapshots.prepare(parent.as_ref())?;
        let tree = Tree::mount(&snapshots.mounts(&snapshot, false)?)
            .map_err(|e| BuildError::system("mount a snapshot", &e))?;
        Ok(Work { snapshot: Some(snapshot), tree })
    }

    fn source(&self, index: i64) -> Result<Tree, BuildError> {
        let slot = usize::try_from(index).ok().and_then(|n| self.slots.get(n));
        match slot.ok_or_else(|| BuildError::invalid(format!("invalid input index {index}")))? {
            Slot::Value(value) => self.job.view(value),
            Slot::Done(snapshot) => Ok(Tree::new(self.job.builder.parts.snapshots.view(snapshot)?)),
            Slot::Open(work) => {
                let fd = rustix::io::fcntl_dupfd_cloexec(work.tree.root(), 0).map_err(io::Error::from)?;
                Ok(Tree::new(fd))
            }
            Slot::Taken => Err(BuildError::invalid(format!("input {index} is used twice"))),
        }
    }
}

fn act(job: &Job, action: &pb::FileAction, tree: &Tree, source: Option<&Tree>) -> Result<(), BuildError> {
    match &action.action {
        Some(pb::FileActionAction::Copy(op)) => {
            let empty;
            let source = match source {
                Some(source) => source,
                None => {
                    empty = Tree::new(job.builder.empty_folder()?);
                    &empty
                }
            };
            copy_action(job, op, source, tree)
        }
        Some(pb::FileActionAction::Mkdir(op)) => make_folder(op, tree),
        Some(pb::FileActionAction::Mkfile(op)) => make_file(op, tree),
        Some(pb::FileActionAction::Symlink(op)) => make_link(op, tree),
        Some(pb::FileActionAction::Rm(op)) => remove(op, tree),
        None => Err(BuildError::invalid("a file action without content")),
    }
}

fn in_tree(what: &str, path: &str, e: &io::Error) -> BuildError {
    let reason = match e.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::StorageFull => "no space left on device".to_owned(),
        _ => e.to_string(),
    };
    BuildError::invalid(format!("{what} {path}: {reason}"))
}

fn time(nanos: i64) -> Option<Timespec> {
    (nanos >= 0).then_some(Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: (nanos % 1_000_000_000) as _ })
}

/// Looks users and groups up in the tree that is written to.
fn owner(chown: Option<&pb::ChownOpt>, tree: &Tree) -> Result<Owner, BuildError> {
    let Some(chown) = chown else { return Ok(None) };
    let find = |file: &str, opt: Option<&pb::UserOpt>, what: &str| -> Result<Option<(u32, Option<u32>)>, BuildError> {
        match opt.and_then(|u| u.user.as_ref()) {
            None => Ok(None),
            Some(pb::UserOptUser::ByID(id)) => Ok(Some((*id, None))),
            Some(pb::UserOptUser::ByName(named)) => {
                if let Ok(id) = named.name.parse::<u32>() {
                    return Ok(Some((id, None)));
                }
                let text = tree.read(Path::new(file), 16 << 20).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                let entry = text
                    .lines()
                    .map(|l| l.split(':').collect::<Vec<_>>())
                    .find(|f| f.first() == Some(&named.name.as_str()));
                let id = entry.as_ref().and_then(|f| f.get(2)?.parse().ok());
                let id = id.ok_or_else(|| BuildError::invalid(format!("invalid {what} index: {}", named.name)));
                let id =
                    id.map_err(|_| BuildError::invalid(format!("unable to convert {what} {} to an id", named.name)))?;
                Ok(Some((id, entry.and_then(|f| f.get(3)?.parse().ok()))))
            }
        }
    };
    let user = find("/etc/passwd", chown.user.as_ref(), "user")?;
    let group = find("/etc/group", chown.group.as_ref(), "group")?;
    let uid = user.map_or(0, |(id, _)| id);
    let gid = group.map(|(id, _)| id).or(user.and_then(|(_, gid)| gid)).unwrap_or(0);
    Ok(Some((uid, gid)))
}

fn copy_action(job: &Job, op: &pb::FileActionCopy, source: &Tree, tree: &Tree) -> Result<(), BuildError> {
    let mode = match (op.mode_str.as_str(), op.mode) {
        ("", -1) => None,
        ("", mode) => Some(ModeChange::Octal(mode.cast_unsigned())),
        (text, _) => Some(ModeChange::parse(text).map_err(BuildError::invalid)?),
    };
    let owner = owner(op.owner.as_ref(), tree)?;
    let options = CopyOptions {
        owner,
        mode,
        time: time(op.timestamp),
        contents: op.dir_copy_contents,
        include: Patterns::new(&op.include_patterns).map_err(BuildError::invalid)?,
        exclude: Patterns::new(&op.exclude_patterns).map_err(BuildError::invalid)?,
        replace: op.always_replace_existing_dest_paths,
    };
    if !op.create_dest_path {
        let above = Path::new(&op.dest).parent().unwrap_or(Path::new("/"));
        if tree.stat(above).is_none() {
            return Err(BuildError::invalid(format!("failed to stat {}: no such file or directory", op.dest)));
        }
    }
    let paths = if op.allow_wildcard {
        wildcards(source, &op.src)
    } else {
        vec![PathBuf::from(format!("/{}", op.src.trim_start_matches('/')))]
    };
    // Wildcards may fit nothing; a name that is not there is a mistake.
    if paths.is_empty() && !(op.allow_empty_wildcard && wharf_dockerfile::ignore::has_wildcard(&op.src)) {
        return Err(BuildError::new(
            wharf_error::Kind::NotFound,
            format!("failed to compute cache key: failed to calculate checksum of ref: \"{}\": not found", op.src),
        ));
    }
    let _ = job;
    for path in paths {
        let path = if op.follow_symlink { source.follow(&path) } else { path };
        if op.attempt_unpack_docker_compatibility && unpack(source, &path, tree, &op.dest, owner)? {
            continue;
        }
        copy(source, &path, tree, &op.dest, &options).map_err(|e| match &e {
            crate::copy::CopyError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                BuildError::invalid(format!("\"{}\": not found", op.src))
            }
            other => BuildError::invalid(wharf_error::Chain(other).to_string()),
        })?;
    }
    Ok(())
}

/// Unpacks an archive, if the file is one; by what is in it, not by its name.
fn unpack(source: &Tree, path: &Path, tree: &Tree, dest: &str, owner: Owner) -> Result<bool, BuildError> {
    let Some(stat) = source.stat(path) else { return Ok(false) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(false);
    }
    let file = || -> Result<BufReader<std::fs::File>, BuildError> {
        Ok(BufReader::new(std::fs::File::from(source.open(path, OFlags::RDONLY)?)))
    };
    if !is_archive(file()?) {
        return Ok(false);
    }
    tree.make_folders(Path::new(dest), 0o755, owner, None).map_err(|e| in_tree("mkdir", dest, &e))?;
    let target = tree.folder(Path::new(dest)).map_err(|e| in_tree("open", dest, &e))?;
    let failed = |e: wharf_archive::ArchiveError| {
        BuildError::invalid(format!("failed to unpack {}: {}", path.display(), wharf_error::Chain(&e)))
    };
    let (compression, stream) = Compression::peek(file()?).map_err(failed)?;
    let mut stream = BufReader::new(Decoder::buffered(compression, stream).map_err(failed)?);
    // Its modes and owners as the archive says; Docker takes owners from the archive too.
    wharf_archive::extract(&mut stream, target, &[], Whiteouts::Keep).map_err(failed)?;
    Ok(true)
}

/// Whether a stream is a tar archive, plain or compressed: its first header is whole.
fn is_archive(stream: impl io::BufRead) -> bool {
    let Ok((compression, stream)) = Compression::peek(stream) else { return false };
    let Ok(decoder) = Decoder::buffered(compression, stream) else { return false };
    let mut decoder = BufReader::new(decoder);
    matches!(wharf_archive::Reader::new(&mut decoder).entry(), Ok(Some(_)))
}

fn make_folder(op: &pb::FileActionMkDir, tree: &Tree) -> Result<(), BuildError> {
    let path = Path::new(&op.path);
    let owner = owner(op.owner.as_ref(), tree)?;
    if !op.make_parents && tree.stat(path.parent().unwrap_or(Path::new("/"))).is_none() {
        return Err(in_tree("mkdir", &op.path, &io::ErrorKind::NotFound.into()));
    }
    let made = tree.make_folders(path, (op.mode & 0o7777).cast_unsigned(), owner, time(op.timestamp));
    made.map(drop).map_err(|e| in_tree("mkdir", &op.path, &e))
}

fn make_file(op: &pb::FileActionMkFile, tree: &Tree) -> Result<(), BuildError> {
    use std::io::Write;
    let failed = |e: io::Error| in_tree("write", &op.path, &e);
    let owner = owner(op.owner.as_ref(), tree)?.unwrap_or((0, 0));
    let (folder, name) = tree.parent(Path::new(&op.path)).map_err(failed)?;
    wharf_archive::remove_tree(folder.as_fd(), &name).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(&folder, name.as_os_str(), flags, Mode::from_raw_mode(0o600))
        .map_err(|e| failed(e.into()))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&op.data).map_err(failed)?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
        .map_err(|e| failed(e.into()))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode((op.mode & 0o7777).cast_unsigned())).map_err(|e| failed(e.into()))?;
    match time(op.timestamp) {
        Some(time) => set_times(file.as_fd(), time).map_err(failed),
        None => Ok(()),
    }
}

fn make_link(op: &pb::FileActionSymlink, tree: &Tree) -> Result<(), BuildError> {
    let failed = |e: io::Error| in_tree("symlink", &op.newpath, &e);
    let (folder, name) = tree.parent(Path::new(&op.newpath)).map_err(failed)?;
    rustix::fs::symlinkat(op.oldpath.as_str(), &folder, name.as_os_str()).map_err(|e| failed(e.into()))?;
    if let Some((uid, gid)) = owner(op.owner.as_ref(), tree)? {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&folder, name.as_os_str(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
            .map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

fn remove(op: &pb::FileActionRm, tree: &Tree) -> Result<(), BuildError> {
    let paths = if op.allow_wildcard { wildcards(tree, &op.path) } else { vec![PathBuf::from(&op.path)] };
    for path in paths {
        if tree.look(&path).is_none() {
            if op.allow_not_found {
                continue;
            }
            return Err(in_tree("lstat", &op.path, &io::ErrorKind::NotFound.into()));
        }
        tree.remove(&path).map_err(|e| in_tree("remove", &op.path, &e))?;
    }
    Ok(())
}
