//! Sending a folder: what is in it, in the order that receivers expect, then the files they ask for.
//!
//! Source: tonistiigi/fsutil `send.go`, `walker.go`, `followlinks.go`.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use wharf_dockerfile::ignore::{Patterns, go_match, has_wildcard};
use wharf_grpc::{Call, Code, Receiver, Sender, Status};
use wharf_proto_buildkit::fsutil::{Packet, PacketType, Stat, mode};

use crate::exit::go_text;

/// Bytes of one data packet.
const CHUNK: usize = 64 << 10;

/// Links that are followed for one path.
const LINKS: usize = 255;

/// What the daemon asks for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The folder's name.
    pub name: String,
    include: Vec<String>,
    exclude: Vec<String>,
    follow: Vec<String>,
}

/// The values of a header, which are escaped as in a query where they are no ASCII.
fn values(call: &Call, name: &str) -> Vec<String> {
    let encoded = call.metadata.get(format!("{name}-encoded")).is_some_and(|v| v == "1");
    let texts = call.metadata.get_all(name).iter().filter_map(|v| v.to_str().ok());
    texts.map(|t| if encoded { unescape(t) } else { t.to_owned() }).collect()
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Wanted {
    /// Reads the headers.
    ///
    /// # Errors
    /// They name no folder.
    pub fn of(call: &Call) -> Result<Self, Status> {
        let name = values(call, "dir-name").into_iter().next();
        let name = name.ok_or_else(|| Status::new(Code::InvalidArgument, "no dir name in request"))?;
        Ok(Self {
            name,
            include: values(call, "include-patterns"),
            exclude: values(call, "exclude-patterns"),
            follow: values(call, "followpaths"),
        })
    }
}

/// Sends a folder.
///
/// # Errors
/// The daemon left; a file cannot be read.
pub async fn send(root: &Path, wanted: &Wanted, call: Call) -> Result<(), Status> {
    let Call { sender, receiver, .. } = call;
    let done = exchange(root, wanted, &sender, receiver).await;
    if let Err(status) = &done {
        let data = status.message.clone().into_bytes();
        let packet = Packet { r#type: PacketType::Err as i32, data, ..Packet::default() };
        // The trailers tell it as well.
        let _ = sender.send(&packet).await;
    }
    done
}

async fn exchange(root: &Path, wanted: &Wanted, sender: &Sender, receiver: Receiver) -> Result<(), Status> {
    let files: Mutex<HashMap<u32, PathBuf>> = Mutex::default();
    let list = async {
        let walk = Walk::new(root, wanted).map_err(|e| Status::new(Code::InvalidArgument, e))?;
        for (id, entry) in (0u32..).zip(walk) {
            let (path, stat) = entry.map_err(|e| Status::new(Code::Unknown, e))?;
            if stat.mode & mode::TYPE == 0 && stat.linkname.is_empty() {
                files.lock().unwrap_or_else(PoisonError::into_inner).insert(id, path);
            }
            sender.send(&Packet { stat: Some(stat), ..packet(PacketType::Stat) }).await?;
        }
        sender.send(&packet(PacketType::Stat)).await
    };
    // Both at once: a daemon that asks while it is told must not wait for us.
    let ((), ()) = tokio::try_join!(list, answer(root, &files, sender, receiver))?;
    Ok(())
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind as i32, ..Packet::default() }
}

async fn answer(
    root: &Path,
    files: &Mutex<HashMap<u32, PathBuf>>,
    sender: &Sender,
    mut receiver: Receiver,
) -> Result<(), Status> {
    while let Some(asked) = receiver.message::<Packet>().await? {
        match PacketType::try_from(asked.r#type) {
            Ok(PacketType::Req) => {
                let path = files.lock().unwrap_or_else(PoisonError::into_inner).remove(&asked.id);
                let unknown = || Status::new(Code::InvalidArgument, format!("invalid file id {}", asked.id));
                let path = path.ok_or_else(unknown)?;
                let failed =
                    |e: &io::Error| Status::new(Code::Unknown, format!("open {}: {}", path.display(), go_text(e)));
                let mut file = File::open(root.join(&path)).map_err(|e| failed(&e))?;
                loop {
                    let mut data = vec![0; CHUNK];
                    let n = file.read(&mut data).map_err(|e| failed(&e))?;
                    data.truncate(n);
                    sender.send(&Packet { id: asked.id, data, ..packet(PacketType::Data) }).await?;
                    if n == 0 {
                        break;
                    }
                }
            }
            Ok(PacketType::Fin) => return sender.send(&packet(PacketType::Fin)).await,
            Ok(PacketType::Err) => {
                let text = String::from_utf8_lossy(&asked.data).into_owned();
                return Err(Status::new(Code::Unknown, format!("error from receiver: {text}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// One folder on the way down, with the names that are still to be seen.
struct Level {
    at: PathBuf,
    names: VecDeque<OsString>,
}

/// What is in a folder and wanted, folders before what is in them. A folder that is left out itself comes only if
/// something in it does.
struct Walk<'a> {
    root: &'a Path,
    exclude: Patterns,
    include: Option<Patterns>,
    /// Paths without wildcards, and all below them.
    only: Option<Vec<PathBuf>>,
    levels: Vec<Level>,
    /// Folders above the place where we are that were not sent yet.
    held: Vec<(PathBuf, Stat)>,
    ready: VecDeque<(PathBuf, Stat)>,
    seen: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path, wanted: &Wanted) -> Result<Self, String> {
        let mut only = (!wanted.follow.is_empty()).then(Vec::new);
        if let Some(list) = &mut only {
            for path in &wanted.follow {
                follow(root, Path::new(path.trim_start_matches('/')), list);
            }
        }
        let include = match wanted.include.is_empty() {
            true => None,
            false => Some(Patterns::new(&wanted.include)?),
        };
        let names = names(root).map_err(|e| format!("open {}: {}", root.display(), go_text(&e)))?;
        Ok(Self {
            root,
            exclude: Patterns::new(&wanted.exclude)?,
            include,
            only,
            levels: vec![Level { at: PathBuf::new(), names }],
            held: Vec::new(),
            ready: VecDeque::new(),
            seen: HashMap::new(),
        })
    }

    /// Whether a path is wanted, and whether something below it may be.
    fn fits(&self, path: &Path) -> (bool, bool) {
        let text = path.to_string_lossy();
        let (mut here, mut below) = (true, true);
        if self.include.is_some() || self.only.is_some() {
            let included = self.include.as_ref().is_some_and(|p| p.matches(&text));
            let listed = self.only.as_ref();
            let named = listed.is_some_and(|list| list.iter().any(|l| path.starts_with(l)));
            here = included || named;
            // Patterns may fit anything below; names only what leads to them.
            below =
                here || self.include.is_some() || listed.is_some_and(|list| list.iter().any(|l| l.starts_with(path)));
        }
        if !self.exclude.is_empty() && self.exclude.matches(&text) {
            here = false;
            below = below && self.exclude.has_exceptions();
        }
        (here, below)
    }

    fn look(&mut self, path: &Path) -> io::Result<Option<Stat>> {
        let full = self.root.join(path);
        let meta = fs::symlink_metadata(&full)?;
        let kind = mode::of_stat(meta.mode());
        if kind & mode::SOCKET != 0 {
            return Ok(None);
        }
        let mut stat = Stat {
            path: path.as_os_str().as_bytes().to_vec(),
            mode: kind,
            mod_time: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            ..Stat::default()
        };
        if meta.file_type().is_symlink() {
            stat.linkname = fs::read_link(&full)?.as_os_str().as_bytes().to_vec();
        } else if meta.is_file() {
            stat.size = i64::try_from(meta.len()).unwrap_or(i64::MAX);
        } else if kind & mode::DEVICE != 0 {
            stat.devmajor = i64::from(rustix::fs::major(meta.rdev()));
            stat.devminor = i64::from(rustix::fs::minor(meta.rdev()));
        }
        Ok(Some(stat))
    }

    /// A further name of a file that was sent is sent as such.
    fn link(&mut self, path: &Path, stat: &mut Stat) -> io::Result<()> {
        let meta = fs::symlink_metadata(self.root.join(path))?;
        if meta.nlink() > 1 && meta.is_file() {
            match self.seen.get(&(meta.dev(), meta.ino())) {
                Some(first) => {
                    stat.linkname = first.as_os_str().as_bytes().to_vec();
                    stat.size = 0;
                }
                None => drop(self.seen.insert((meta.dev(), meta.ino()), path.to_owned())),
            }
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<bool> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        let Some(name) = level.names.pop_front() else {
            let done = self.levels.pop().map(|l| l.at);
            self.held.retain(|(path, _)| Some(path) != done.as_ref());
            return Ok(true);
        };
        let path = level.at.join(name);
        let (here, below) = self.fits(&path);
        if !here && !below {
            return Ok(true);
        }
        let mut stat = match self.look(&path) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(true),
            // Gone between listing and looking.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(e) => return Err(e),
        };
        let is_folder = stat.mode & mode::DIR != 0;
        if here {
            self.link(&path, &mut stat)?;
            self.ready.extend(self.held.drain(..));
            self.ready.push_back((path.clone(), stat));
        } else if is_folder {
            self.held.push((path.clone(), stat));
        }
        if is_folder && below {
            let names = names(&self.root.join(&path))?;
            self.levels.push(Level { at: path, names });
        }
        Ok(true)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(PathBuf, Stat), String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    let at = self.levels.last().map(|l| l.at.clone()).unwrap_or_default();
                    self.levels.clear();
                    return Some(Err(format!("{}: {}", self.root.join(at).display(), go_text(&e))));
                }
            }
        }
    }
}

fn names(folder: &Path) -> io::Result<VecDeque<OsString>> {
    let names = fs::read_dir(folder)?.map(|e| e.map(|e| e.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names.into())
}

/// Notes a path and the links on the way to it, so that what they lead to comes along. Nothing outside of the folder is
/// ever noted: a link that leads out leads to its root.
fn follow(root: &Path, path: &Path, out: &mut Vec<PathBuf>) {
    let parts = path.components().filter_map(|c| match c {
        Component::Normal(part) => Some((part.to_owned(), has_wildcard(&part.to_string_lossy()))),
        _ => None,
    });
    let mut links = LINKS;
    walk_links(root, PathBuf::new(), parts.collect(), &mut links, out);
}

/// What is left of a path: names, and whether each is a pattern. A name that was found is none, whatever is in it.
type Rest = VecDeque<(OsString, bool)>;

fn walk_links(root: &Path, mut at: PathBuf, mut rest: Rest, links: &mut usize, out: &mut Vec<PathBuf>) {
    while let Some((part, wild)) = rest.pop_front() {
        if part == "." {
            continue;
        }
        if part == ".." {
            at.pop();
            continue;
        }
        if wild {
            let text = part.to_string_lossy().into_owned();
            for name in names(&root.join(&at)).unwrap_or_default() {
                if go_match(&text, &name.to_string_lossy()).unwrap_or(false) {
                    let mut further = rest.clone();
                    further.push_front((name, false));
                    walk_links(root, at.clone(), further, links, out);
                }
            }
            return;
        }
        let next = at.join(&part);
        match fs::read_link(root.join(&next)) {
            Ok(target) if *links > 0 => {
                *links -= 1;
                out.push(next);
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                for component in target.components().rev() {
                    match component {
                        Component::Normal(part) => rest.push_front((part.to_owned(), false)),
                        Component::ParentDir => rest.push_front(("..".into(), false)),
                        _ => {}
                    }
                }
            }
            _ => at = next,
        }
    }
    out.push(at);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(root: &Path, wanted: &Wanted) -> Vec<String> {
        let walk = Walk::new(root, wanted).expect("patterns");
        walk.map(|e| e.expect("read").0.to_string_lossy().into_owned()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for file in ["a/b/c", "a/d", "a.txt", "x/y/z.md", "x/k"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("parent")).expect("made");
            fs::write(path, file).expect("written");
        }
        std::os::unix::fs::symlink("../a/b", folder.path().join("x/l")).expect("linked");
        folder
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let folder = tree();
        let all = ["a", "a/b", "a/b/c", "a/d", "a.txt", "x", "x/k", "x/l", "x/y", "x/y/z.md"];
        assert_eq!(listed(folder.path(), &Wanted::default()), all);
    }

    #[test]
    fn an_exception_brings_its_folders_back() {
        let folder = tree();
        let exclude = vec!["x".to_owned(), "a*".to_owned(), "!x/y/z.md".to_owned()];
        let wanted = Wanted { exclude, ..Wanted::default() };
        assert_eq!(listed(folder.path(), &wanted), ["x", "x/y", "x/y/z.md"]);
    }

    #[test]
    fn a_followed_path_brings_what_its_links_lead_to() {
        let folder = tree();
        let wanted = Wanted { follow: vec!["x/l/c".to_owned(), "nosuch".to_owned()], ..Wanted::default() };
        assert_eq!(listed(folder.path(), &wanted), ["a", "a/b", "a/b/c", "x", "x/l"]);
        let wanted = Wanted { follow: vec!["*.txt".to_owned()], ..Wanted::default() };
        assert_eq!(listed(folder.path(), &wanted), ["a.txt"]);
        // A name that was found by a pattern is no pattern itself.
        fs::write(folder.path().join("q[b"), "").expect("written");
        let wanted = Wanted { follow: vec!["q[[]b".to_owned()], ..Wanted::default() };
        assert_eq!(listed(folder.path(), &wanted), ["q[b"]);
    }

    #[test]
    fn links_that_lead_out_stay_within() {
        let folder = tree();
        std::os::unix::fs::symlink("../../../../etc", folder.path().join("out")).expect("linked");
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).expect("linked");
        let wanted = Wanted { follow: vec!["out/passwd".to_owned(), "loop".to_owned()], ..Wanted::default() };
        assert_eq!(listed(folder.path(), &wanted), ["loop", "out"]);
    }
}
