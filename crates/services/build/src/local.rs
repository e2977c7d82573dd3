//! Contexts: folders of clients, kept here between builds so that only what changed is sent.
//!
//! ```text
//! <data-root>/build/local/<digest of name and key>/<n>/{tree/, index}     index: what is in tree, with file digests
//! ```
//!
//! A tree belongs to one build at a time; a second build of the same folder at the same time gets another one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, openat2};
use wharf_grpc::{Receiver, Sender};
use wharf_proto_buildkit::Message;
use wharf_proto_buildkit::fsutil::{Packet, PacketType, Stat, mode};
use wharf_solver::{Hasher, digest_of};

use crate::BuildError;
use crate::tree::Tree;

/// Entries of one context at most, as a bound on memory.
const ENTRIES: usize = 4_000_000;

/// What is known of one path.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// As the client sent it.
    #[prost(message, optional, tag = "1")]
    pub stat: Option<Stat>,
    /// SHA-256 of a file's content.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

/// A context that is here.
pub struct Context {
    folder: PathBuf,
    tree: Tree,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Digest of everything in it.
    pub key: String,
    /// Bytes that were sent for it.
    pub transferred: u64,
    pool: Arc<Pool>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.pool.used.lock().unwrap_or_else(PoisonError::into_inner).retain(|f| *f != self.folder);
    }
}

impl Context {
    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// The digest of a file's content.
    pub fn digest(&self, path: &Path) -> Option<[u8; 32]> {
        let name = path.as_os_str().as_bytes();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        self.entries.get(name)?.digest.as_slice().try_into().ok()
    }

    /// Names of all that is in it.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().map(Vec::as_slice)
    }
}

/// All contexts of a daemon.
pub struct Pool {
    folder: PathBuf,
    used: Mutex<Vec<PathBuf>>,
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> BuildError + 'a {
    move |e| BuildError::new(wharf_error::Kind::System, format!("{what} {}: {e}", path.display()))
}

impl Pool {
    /// Opens the folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, used: Mutex::new(Vec::new()) }
    }

    /// Where the contexts are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a build uses a folder just now.
    pub fn in_use(&self, folder: &Path) -> bool {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|f| f == folder)
    }

    /// Takes a folder for a key: the first that no other build uses.
    fn take(&self, key: &str) -> Result<PathBuf, BuildError> {
        let digest = digest_of(key.as_bytes());
        let base = self.folder.join(&digest["sha256:".len().."sha256:".len() + 32]);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0..).map(|n: u32| base.join(n.to_string())).find(|f| !used.contains(f));
        let folder = free.unwrap_or(base);
        std::fs::create_dir_all(folder.join("tree")).map_err(failed("make", &folder))?;
        used.push(folder.clone());
        Ok(folder)
    }

    /// Takes a folder with what is known to be in it.
    fn open(self: &Arc<Self>, key: &str) -> Result<Context, BuildError> {
        let folder = self.take(key)?;
        let tree = Tree::at(&folder.join("tree")).map_err(failed("open", &folder))?;
        let mut context = Context {
            tree,
            entries: BTreeMap::new(),
            key: String::new(),
            transferred: 0,
            pool: self.clone(),
            folder: folder.clone(),
        };
        let index = folder.join("index");
        match std::fs::read(&index) {
            Ok(bytes) => context.entries = read_index(&bytes).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("read", &index)(e)),
        }
        // Without an index nothing is known of what is there; with one, a crash before the next would make it lie.
        if context.entries.is_empty() {
            let top = File::open(&folder).map_err(failed("open", &folder))?;
            wharf_archive::remove_tree(top.as_fd(), OsStr::new("tree")).map_err(failed("empty", &folder))?;
            std::fs::create_dir(folder.join("tree")).map_err(failed("make", &folder))?;
            context.tree = Tree::at(&folder.join("tree")).map_err(failed("open", &folder))?;
        } else {
            std::fs::remove_file(&index).map_err(failed("remove", &index))?;
        }
        Ok(context)
    }

    /// Brings a context up to date from a client's stream.
    ///
    /// # Errors
    /// The client left or sent nonsense; the disk failed.
    pub async fn receive(
        self: &Arc<Self>,
        key: &str,
        sender: Sender,
        mut receiver: Receiver,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Context, BuildError> {
        let context = in_place(|| self.open(key))?;
        let mut sync = Transfer {
            context,
            fresh: BTreeMap::new(),
            order: 0,
            open: BTreeMap::new(),
            waiting: 0,
            folders: Vec::new(),
        };
        let mut all = false;
        loop {
            let Some(packet) = receiver.message::<Packet>().await? else {
                return Err(BuildError::new(
                    wharf_error::Kind::Unavailable,
                    "the client ended the transfer of its folder early",
                ));
            };
            match PacketType::try_from(packet.r#type) {
                Ok(PacketType::Stat) => match packet.stat {
                    Some(stat) => {
                        let id = sync.order;
                        if in_place(|| sync.stat(stat))? {
                            let request = Packet { r#type: PacketType::Req as i32, id, ..Packet::default() };
                            sender.send(&request).await?;
                        }
                    }
                    None => all = true,
                },
                Ok(PacketType::Data) => {
                    in_place(|| sync.data(packet.id, &packet.data))?;
                    progress(sync.context.transferred);
                }
                Ok(PacketType::Fin) => break,
                Ok(PacketType::Err) => {
                    let text = String::from_utf8_lossy(&packet.data).into_owned();
                    return Err(BuildError::invalid(format!("error from sender: {text}")));
                }
                _ => return Err(BuildError::invalid("unexpected packet in the transfer of a folder")),
            }
            if all && sync.waiting == 0 {
                sender.send(&Packet { r#type: PacketType::Fin as i32, ..Packet::default() }).await?;
                // The client answers in kind.
                all = false;
            }
        }
        drop(sender);
        in_place(|| sync.finish())
    }

    /// Makes a context of a tar stream, for the classic builder.
    ///
    /// # Errors
    /// The archive is damaged; the disk failed.
    pub fn extract(self: &Arc<Self>, stream: &mut dyn io::BufRead) -> Result<Context, BuildError> {
        let mut id = [0; 16];
        // getrandom(2) does not fail once the pool is ready.
        let _ = rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty());
        let context = self.open(&format!("tar {id:x?}"))?;
        let root = Tree::at(&context.path()).map_err(failed("open", &context.folder))?;
        let root = rustix::io::fcntl_dupfd_cloexec(root.root(), 0).map_err(|e| BuildError::from(io::Error::from(e)))?;
        wharf_archive::extract(stream, root, &[], wharf_archive::Whiteouts::Keep)
            .map_err(|e| BuildError::new(wharf_error::Kind::Invalid, wharf_error::Chain(&e).to_string()))?;
        self.settle(context)
    }

    /// Gives everything to root, as contexts are, and computes the key.
    fn settle(self: &Arc<Self>, mut context: Context) -> Result<Context, BuildError> {
        give_to_root(context.tree.root()).map_err(failed("read", &context.folder))?;
        let selection = crate::content::Selection { path: "/".to_owned(), ..Default::default() };
        context.key = crate::content::digest(&context.tree, &selection, &|_, _| None)?;
        Ok(context)
    }

    /// Removes a context that was made for one build.
    pub fn discard(&self, context: &Context) {
        if let Some(parent) = context.folder.parent()
            && let Err(error) = std::fs::remove_dir_all(parent)
        {
            tracing::warn!(%error, path = %parent.display(), "cannot remove a build context");
        }
    }
}

/// Runs what blocks for a moment on this very thread.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

fn give_to_root(folder: BorrowedFd<'_>) -> io::Result<()> {
    for name in crate::tree::names(folder)? {
        let stat = crate::tree::look_at(folder, &name)?;
        if (stat.st_uid, stat.st_gid) != (0, 0) {
            let mode = stat.st_mode & 0o7777;
            rustix::fs::chownat(folder, &name, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW)?;
            // A change of owner clears set-id bits.
            if mode & 0o6000 != 0 && FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                rustix::fs::chmodat(folder, &name, Mode::from_raw_mode(mode), AtFlags::empty())?;
            }
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let inner = rustix::fs::openat(folder, &name, flags, Mode::empty())?;
            give_to_root(inner.as_fd())?;
        }
    }
    Ok(())
}

/// A file on its way.
struct Incoming {
    path: Vec<u8>,
    file: File,
    hash: ring::digest::Context,
}

/// A transfer.
struct Transfer {
    context: Context,
    fresh: BTreeMap<Vec<u8>, Entry>,
    order: u32,
    open: BTreeMap<u32, Option<Incoming>>,
    waiting: usize,
    /// Folders whose times are set at the end, because filling a folder changes them.
    folders: Vec<Vec<u8>>,
}

fn hostile(path: &[u8]) -> BuildError {
    BuildError::invalid(format!("the client sent a path that leaves its folder: {:?}", String::from_utf8_lossy(path)))
}

impl Transfer {
    /// Takes what the client says of a path; returns whether its content is wanted.
    fn stat(&mut self, stat: Stat) -> Result<bool, BuildError> {
        let id = self.order;
        self.order += 1;
        let path = stat.path.clone();
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        if parts.iter().any(|p| p.is_empty() || *p == b"." || *p == b"..") || path.contains(&0) {
            return Err(hostile(&path));
        }
        if self.fresh.len() >= ENTRIES {
            return Err(BuildError::invalid("the build context has too many files"));
        }
        // Everything above a path came before it, as a folder.
        let above = &path[..path.len() - parts.last().map_or(0, |p| p.len())];
        let above = above.strip_suffix(b"/").unwrap_or(above);
        let is_folder = |e: &Entry| e.stat.as_ref().is_some_and(|s| s.mode & mode::DIR != 0);
        if !above.is_empty() && !self.fresh.get(above).is_some_and(is_folder) {
            return Err(hostile(&path));
        }
        let same = self.context.entries.get(&path).filter(|e| e.stat.as_ref() == Some(&stat)).cloned();
        let regular = stat.mode & mode::TYPE == 0;
        if let Some(entry) = same {
            if stat.mode & mode::DIR != 0 {
                self.folders.push(path.clone());
            }
            self.fresh.insert(path, entry);
            return Ok(false);
        }
        let old_folder = self.context.entries.get(&path).is_some_and(is_folder);
        let new_folder = stat.mode & mode::DIR != 0;
        let what = String::from_utf8_lossy(&path).into_owned();
        let (folder, name) = self.place(&path)?;
        if !(old_folder && new_folder) {
            wharf_archive::remove_tree(folder.as_fd(), name).map_err(failed("replace", Path::new(&what)))?;
        }
        let wanted = regular && stat.linkname.is_empty();
        if wanted {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600))
                .map_err(|e| failed("create", Path::new(&what))(e.into()))?;
            let hash = ring::digest::Context::new(&ring::digest::SHA256);
            self.open.insert(id, Some(Incoming { path: path.clone(), file: File::from(file), hash }));
            self.waiting += 1;
        } else {
            make(&folder, name, &stat, self.context.tree.root()).map_err(failed("make", Path::new(&what)))?;
            if new_folder {
                self.folders.push(path.clone());
            }
        }
        let digest = match self.fresh.get(&stat.linkname).filter(|_| regular && !stat.linkname.is_empty()) {
            Some(entry) => entry.digest.clone(),
            None => Vec::new(),
        };
        self.fresh.insert(path, Entry { stat: Some(stat), digest });
        Ok(wanted)
    }

    fn place<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr), BuildError> {
        let (above, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b"."[..], path),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let folder = openat2(self.context.tree.root(), OsStr::from_bytes(above), flags, Mode::empty(), strict);
        let folder = folder.map_err(|e| failed("open", Path::new(OsStr::from_bytes(above)))(e.into()))?;
        Ok((folder, OsStr::from_bytes(name)))
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<(), BuildError> {
        let unknown = || BuildError::invalid("the client sent content that nobody asked for");
        let slot = self.open.get_mut(&id).ok_or_else(unknown)?;
        let incoming = slot.as_mut().ok_or_else(unknown)?;
        let path = PathBuf::from(OsStr::from_bytes(&incoming.path));
        if !data.is_empty() {
            incoming.hash.update(data);
            self.context.transferred += data.len() as u64;
            return incoming.file.write_all(data).map_err(failed("write", &path));
        }
        let Some(Incoming { path: name, file, hash }) = slot.take() else { return Err(unknown()) };
        let Some(entry) = self.fresh.get_mut(&name) else { return Err(unknown()) };
        entry.digest = hash.finish().as_ref().to_vec();
        if let Some(stat) = &entry.stat {
            dress(file.as_fd(), stat).map_err(failed("set attributes of", &path))?;
        }
        self.waiting -= 1;
        self.open.remove(&id);
        Ok(())
    }

    fn finish(mut self) -> Result<Context, BuildError> {
        for path in self.context.entries.keys().rev() {
            if !self.fresh.contains_key(path) {
                let (folder, name) = match self.place(path) {
                    Ok(place) => place,
                    // Gone with something above it that was replaced.
                    Err(_) => continue,
                };
                wharf_archive::remove_tree(folder.as_fd(), name).map_err(failed("remove", Path::new(name)))?;
            }
        }
        for path in self.folders.iter().rev() {
            let Some(stat) = self.fresh.get(path).and_then(|e| e.stat.as_ref()) else { continue };
            let (folder, name) = self.place(path)?;
            let time = time(stat);
            rustix::fs::utimensat(&folder, name, &time, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed("set times of", Path::new(name))(e.into()))?;
        }
        let mut hasher = Hasher::default();
        for (path, entry) in &self.fresh {
            let Some(stat) = &entry.stat else { continue };
            hasher.part(path).part(&stat.linkname).part(&entry.digest);
            for number in [stat.mode, stat.uid, stat.gid] {
                hasher.raw(&number.to_le_bytes());
            }
        }
        self.context.key = hasher.finish();
        self.context.entries = self.fresh;
        write_index(&self.context.folder, &self.context.entries)?;
        Ok(self.context)
    }
}

fn time(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.mod_time.div_euclid(1_000_000_000),
        tv_nsec: stat.mod_time.rem_euclid(1_000_000_000) as _,
    };
    Timestamps { last_access: time, last_modification: time }
}

fn dress(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode::permissions(stat.mode)))?;
    for (name, value) in stat.xattrs.iter().filter(|(n, _)| !n.starts_with("trusted.")) {
        match rustix::fs::fsetxattr(fd, name.as_str(), value, rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(rustix::fs::futimens(fd, &time(stat))?)
}

/// Makes what is no file with content of its own.
fn make(folder: &OwnedFd, name: &OsStr, stat: &Stat, root: BorrowedFd<'_>) -> io::Result<()> {
    let bits = Mode::from_raw_mode(mode::permissions(stat.mode));
    match stat.mode & mode::TYPE {
        mode::DIR => {
            match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
            return dress(fd.as_fd(), stat);
        }
        mode::SYMLINK => rustix::fs::symlinkat(OsStr::from_bytes(&stat.linkname), folder, name)?,
        0 => {
            let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let first = openat2(root, OsStr::from_bytes(&stat.linkname), flags, Mode::empty(), strict)?;
            return Ok(rustix::fs::linkat(&first, "", folder, name, AtFlags::EMPTY_PATH)?);
        }
        kind => {
            let file = match kind {
                mode::NAMED_PIPE => FileType::Fifo,
                mode::DEVICE => FileType::BlockDevice,
                k if k == mode::DEVICE | mode::CHAR_DEVICE => FileType::CharacterDevice,
                // A socket means nothing without its process.
                _ => return Ok(()),
            };
            let part = |n: i64| u32::try_from(n).unwrap_or(0);
            let device = rustix::fs::makedev(part(stat.devmajor), part(stat.devminor));
            rustix::fs::mknodat(folder, name, file, bits, device)?;
            rustix::fs::chmodat(folder, name, bits, AtFlags::empty())?;
        }
    }
    let owner = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
    rustix::fs::chownat(folder, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(folder, name, &time(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn read_index(bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Entry>> {
    let mut entries = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let entry = Entry::decode_length_delimited(&mut rest).ok()?;
        entries.insert(entry.stat.as_ref()?.path.clone(), entry);
    }
    Some(entries)
}

fn write_index(folder: &Path, entries: &BTreeMap<Vec<u8>, Entry>) -> Result<(), BuildError> {
    let draft = folder.join("index.new");
    let mut bytes = Vec::with_capacity(entries.len() * 128);
    for entry in entries.values() {
        // A Vec takes everything.
        let _ = entry.encode_length_delimited(&mut bytes);
    }
    std::fs::write(&draft, &bytes).map_err(failed("write", &draft))?;
    std::fs::rename(&draft, folder.join("index")).map_err(failed("write", &draft))
}
