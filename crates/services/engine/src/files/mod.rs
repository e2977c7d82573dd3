//! Files of containers from outside: what a path is, copying out and in (`docker cp`), and what was changed.

mod tree;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, readlinkat};
use tokio::sync::oneshot;
use wharf_api_types::{FilesystemChange, PathStat};
use wharf_archive::{ArchiveError, ChangeKind, Compression, Copying, Decoder, Root, copy_into, pack_as};
use wharf_snapshot::Snapshotter;
use wharf_types::Timestamp;

use crate::config::EngineConfig;
use crate::container::{Container, Registry, View};
use crate::create::mounts::Source as PointSource;
use crate::creator::tell;
use crate::events::Events;
use crate::images::difference;
use crate::volumes::Volumes;
use crate::{EngineError, blocking, identity};
pub(crate) use tree::mount_of;
use tree::{Hung, Origin, Plan, Source, Tree, Writable, namespace_of};

/// Links that one path may go through (moby `pkg/symlink`).
const LINKS: usize = 255;

/// Reads and writes the files of containers.
pub struct Files {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) events: Arc<Events>,
}

/// How to copy in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Refuses to put a file in a directory's place and the other way round.
    pub keep_kinds: bool,
    /// Gives what is made to the container's own user, if it has one.
    pub own: bool,
}

/// Whether somebody else may mount the container's layers while the tree is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// It is only read.
    Shared,
    /// The container's lock is held.
    Exclusive,
}

impl Files {
    /// Says what a path is; links in its last place are not followed, but told of.
    pub async fn stat(&self, name: &str, path: &str) -> Result<PathStat, EngineError> {
        let container = self.registry.find(name)?;
        let (given, named) = (path.to_owned(), name.to_owned());
        self.inside(&container, move |tree| Ok(open_path(tree, &given, &named)?.1)).await
    }

    /// Sends a path as a tar stream to `out`; the answer comes as soon as it is known what the path is.
    pub async fn read(
        &self,
        name: &str,
        path: &str,
        mut out: impl Write + Send + 'static,
        failed: impl FnOnce(EngineError) + Send + 'static,
    ) -> Result<PathStat, EngineError> {
        let container = self.registry.find(name)?;
        let (given, named) = (path.to_owned(), name.to_owned());
        let (sender, receiver) = oneshot::channel();
        let guard = self.complete(&container).await?;
        let access = if guard.is_some() { Access::Exclusive } else { Access::Shared };
        let plan = self.plan(&container, access)?;
        spawn(plan, move |tree| {
            // Held until the client has everything: nobody else may mount the layers meanwhile.
            let _guard = guard;
            let found = tree
                .map_err(EngineError::ContainerFiles)
                .and_then(|tree| open_path(&tree, &given, &named).map(|found| (found, tree.users)));
            let ((fd, stat), users) = match found {
                Ok(found) => found,
                Err(e) => return drop(sender.send(Err(e))),
            };
            let first = PathBuf::from(&stat.name);
            if sender.send(Ok(stat)).is_err() {
                return;
            }
            match pack_as(fd, &first, users.as_ref(), &mut out).and_then(|()| out.flush().map_err(ArchiveError::Write))
            {
                // A client that left is no fault of ours.
                Ok(()) | Err(ArchiveError::Write(_)) => {}
                Err(e) => failed(e.into()),
            }
        })?;
        let stat = receiver.await.map_err(|_| EngineError::Worker)??;
        tell(&self.events, &container.view().record, "archive-path", &[]);
        Ok(stat)
    }

    /// Extracts a tar stream, plain or compressed, in a directory of the container.
    pub async fn write(
        &self,
        name: &str,
        path: &str,
        options: CopyOptions,
        body: impl BufRead + Send + 'static,
    ) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        let guard = container.view().task.is_none().then(|| container.lock.clone().lock_owned());
        let guard = match guard {
            Some(locking) => Some(locking.await),
            None => None,
        };
        let user = container.view().record.config.user.clone();
        let user = (options.own && !user.is_empty()).then_some(user);
        let (given, named) = (path.to_owned(), name.to_owned());
        self.run(&container, Access::Exclusive, move |tree| {
            let _guard = guard;
            let (fd, stat) = open_path(tree, &given, &named)?;
            if stat.mode & mode::DIRECTORY == 0 {
                // A link to a folder is one.
                let followed = tree.root.directory(Path::new(&given)).map_err(|_| EngineError::CopyNoFolder)?;
                drop(fd);
                return extract(tree, &followed, &given, user.as_deref(), options, body);
            }
            extract(tree, &fd, &given, user.as_deref(), options, body)
        })
        .await?;
        tell(&self.events, &container.view().record, "extract-to-dir", &[]);
        Ok(())
    }

    /// Lists what differs from the image, as moby's `archive.ChangesDirs` does with the containerd image store: a folder
    /// that holds a change is shown as changed.
    pub async fn changes(&self, name: &str) -> Result<Vec<FilesystemChange>, EngineError> {
        let record = self.registry.find(name)?.view().record.clone();
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let difference = difference(snapshots.as_ref(), &record.snapshot)?;
            let failed = |e| EngineError::ContainerFiles(io::Error::other(e));
            let shown = |change: wharf_archive::Change| FilesystemChange {
                path: Path::new("/").join(change.path).to_string_lossy().into_owned(),
                kind: match change.kind {
                    ChangeKind::Modified => 0,
                    ChangeKind::Added => 1,
                    ChangeKind::Deleted => 2,
                },
            };
            Ok(difference.changes().map_err(failed)?.into_iter().map(shown).collect())
        })
        .await?
    }

    /// Takes the container's lock if its tree cannot be read without it: a mount point has to be made first.
    async fn complete(
        &self,
        container: &Arc<Container>,
    ) -> Result<Option<tokio::sync::OwnedMutexGuard<()>>, EngineError> {
        let view = container.view();
        if view.task.is_some() || view.record.points.is_empty() {
            return Ok(None);
        }
        if !self.run(container, Access::Shared, |tree| Ok(tree.incomplete)).await? {
            return Ok(None);
        }
        let guard = container.lock.clone().lock_owned().await;
        Ok(container.view().task.is_none().then_some(guard))
    }

    /// Works in the container's tree for reading, also where a mount point has to be made first.
    async fn inside<T: Send + 'static>(
        &self,
        container: &Arc<Container>,
        work: impl FnOnce(&Tree) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let guard = self.complete(container).await?;
        let access = if guard.is_some() { Access::Exclusive } else { Access::Shared };
        let done = self.run(container, access, work).await;
        drop(guard);
        done
    }

    /// Works in the container's tree on a thread of its own.
    async fn run<T: Send + 'static>(
        &self,
        container: &Container,
        access: Access,
        work: impl FnOnce(&Tree) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let plan = self.plan(container, access)?;
        let (sender, receiver) = oneshot::channel();
        spawn(plan, move |tree| {
            let outcome = tree.map_err(EngineError::ContainerFiles).and_then(|tree| work(&tree));
            // The client may have left.
            let _ = sender.send(outcome);
        })?;
        receiver.await.map_err(|_| EngineError::Worker)?
    }

    fn plan(&self, container: &Container, access: Access) -> Result<Plan, EngineError> {
        let view = container.view();
        let record = &view.record;
        let origin = match &view.task {
            Some(task) => {
                let namespace = namespace_of(task.pid, container.id.as_str());
                Origin::Running(namespace.map_err(|_| EngineError::NotRunning(container.id.to_string()))?)
            }
            None => Origin::Resting {
                mounts: self.snapshots.mounts(&record.snapshot, false)?,
                read_only: access == Access::Shared,
            },
        };
        Ok(Plan {
            origin,
            points: self.points(&view),
            read_only: record.host.readonly_rootfs,
            users: self.config.users_of(&record.host).cloned(),
            place: self.config.container_folder(&record.id),
        })
    }

    fn points(&self, view: &View) -> Vec<Hung> {
        let record = &view.record;
        let memory = record.host.tmpfs.iter().flatten().map(|(target, _)| Hung {
            target: crate::create::mounts::clean(target),
            source: None,
            read_only: false,
        });
        let hung = record.points.iter().map(|point| {
            let source = match &point.source {
                PointSource::Bind { path, .. } => {
                    Some(Source { path: PathBuf::from(path), within: String::new(), shifted: false })
                }
                PointSource::Volume { name, subpath, .. } => {
                    Some(Source { path: self.volumes.data(name), within: subpath.clone(), shifted: true })
                }
                // An image's files are mounted by the start; a container that does not run has none of them.
                PointSource::Tmpfs { .. } | PointSource::Image { .. } => None,
            };
            Hung { target: point.target.clone(), source, read_only: point.read_only }
        });
        let folder = self.config.shown_folder(record);
        let own = ["hosts", "hostname", "resolv.conf"].map(|name| Hung {
            target: format!("/etc/{name}"),
            source: Some(Source { path: folder.join(name), within: String::new(), shifted: true }),
            read_only: false,
        });
        hung.chain(memory).chain(own).collect()
    }
}

/// Runs work in a tree on a thread that ends with it: the thread's mount namespace is not the engine's any more.
fn spawn(plan: Plan, work: impl FnOnce(io::Result<Tree>) + Send + 'static) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name("files".to_owned());
    thread.spawn(move || work(Tree::enter(plan))).map(drop).map_err(EngineError::ContainerFiles)
}

/// Opens a path without following a link in its last place, and says what it is.
fn open_path(tree: &Tree, path: &str, container: &str) -> Result<(OwnedFd, PathStat), EngineError> {
    let missing = || EngineError::NoFile { path: path.to_owned(), container: container.to_owned() };
    let mut flags = OFlags::PATH | OFlags::NOFOLLOW;
    if path.ends_with('/') || path.ends_with("/.") {
        flags = OFlags::PATH | OFlags::DIRECTORY;
    }
    let fd = tree.root.open(Path::new(path), flags, Mode::empty()).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => EngineError::FileAccess { path: path.to_owned(), reason: crate::spec::lower(&e) },
    })?;
    let stat = fstat(&fd).map_err(|e| EngineError::ContainerFiles(e.into()))?;
    let link_target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = resolve(&tree.root, Path::new(path)).map_err(EngineError::ContainerFiles)?;
            format!("/{}", target.display())
        }
        _ => String::new(),
    };
    let trimmed = path.trim_end_matches('/');
    let name = match trimmed.rsplit('/').next() {
        Some("") | None => "/",
        Some(name) => name,
    };
    let described = PathStat {
        name: name.to_owned(),
        size: stat.st_size,
        mode: mode::of(&stat),
        mtime: Timestamp::from_unix(stat.st_mtime, stat.st_mtime_nsec as u32),
        link_target,
    };
    Ok((fd, described))
}

fn extract(
    tree: &Tree,
    folder: &OwnedFd,
    path: &str,
    user: Option<&str>,
    options: CopyOptions,
    body: impl BufRead,
) -> Result<(), EngineError> {
    use std::os::fd::AsFd;
    match tree.writable(folder.as_fd()).map_err(EngineError::ContainerFiles)? {
        Writable::Yes => {}
        Writable::RootReadOnly => return Err(EngineError::CopyRootReadOnly),
        Writable::MountReadOnly => return Err(EngineError::CopyMountReadOnly),
    }
    let owner = match user {
        Some(user) => {
            let root = tree.root.directory(Path::new("")).map_err(EngineError::ContainerFiles)?;
            let found = identity::look_up(user, &[], &crate::rootfs::Root::of_folder(root))?;
            Some((found.uid, found.gid))
        }
        None => None,
    };
    let (compression, stream) = Compression::peek(body)?;
    // A plain archive is written to the files out of the buffers that it came in.
    let mut stream: Box<dyn BufRead> = match compression {
        Compression::None => Box::new(stream),
        packed => Box::new(BufReader::with_capacity(64 << 10, Decoder::new(packed, stream)?)),
    };
    let root = tree.root.directory(Path::new("")).map_err(EngineError::ContainerFiles)?;
    let users = tree.users.as_ref();
    let how = Copying { owner, users, keep_kinds: options.keep_kinds, renamed: None };
    copy_into(&mut stream, root, Path::new(path), how)?;
    // What follows the archive's end mark belongs to it; a client whose body is not read to the end fails.
    io::copy(&mut stream, &mut io::sink()).map_err(|e| EngineError::Archive(ArchiveError::Read(e)))?;
    Ok(())
}

/// Follows all links of a path to the last target, whether that exists or not; relative to the root.
fn resolve(root: &Root, path: &Path) -> io::Result<PathBuf> {
    let parts = |path: &Path| -> VecDeque<OsString> { path.iter().map(OsString::from).collect() };
    let (mut done, mut rest, mut links) = (PathBuf::new(), parts(path), 0);
    while let Some(part) = rest.pop_front() {
        match part.as_bytes() {
            b"/" | b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => {}
        }
        let next = done.join(&part);
        match root.open(&next, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                let target = readlinkat(&fd, "", Vec::new())?;
                let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.to_bytes()));
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                let mut more = parts(&target);
                more.append(&mut rest);
                rest = more;
            }
            _ => done = next,
        }
    }
    Ok(done)
}

/// Go's `os.FileMode`, which the API speaks.
mod mode {
    use super::{FileType, Stat};

    pub(super) const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const FIFO: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SET_UID: u32 = 1 << 23;
    const SET_GID: u32 = 1 << 22;
    const CHARACTER: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;

    pub(super) fn of(stat: &Stat) -> u32 {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => DIRECTORY,
            FileType::Symlink => SYMLINK,
            FileType::BlockDevice => DEVICE,
            FileType::CharacterDevice => DEVICE | CHARACTER,
            FileType::Fifo => FIFO,
            FileType::Socket => SOCKET,
            FileType::RegularFile | FileType::Unknown => 0,
        };
        let special = [(0o4000, SET_UID), (0o2000, SET_GID), (0o1000, STICKY)];
        let bits = special.iter().filter(|(bit, _)| stat.st_mode & bit != 0).fold(0, |sum, (_, go)| sum | go);
        kind | bits | (stat.st_mode & 0o777)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_resolved_beneath_the_root_to_their_last_target() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir_all(folder.path().join("etc/sub")).expect("made");
        symlink("/etc/../etc/sub", folder.path().join("a")).expect("made");
        symlink("../../../../nowhere", folder.path().join("etc/b")).expect("made");
        symlink("loop", folder.path().join("loop")).expect("made");
        let root = Root::at(folder.path()).expect("opened");
        assert_eq!(resolve(&root, Path::new("/a")).expect("resolved"), Path::new("etc/sub"));
        assert_eq!(resolve(&root, Path::new("a/../b")).expect("resolved"), Path::new("nowhere"));
        assert!(resolve(&root, Path::new("/loop")).is_err());
    }
}
