//! Taking a folder that the daemon sends as a result. What is there stays, unless something of that name comes.
//!
//! Every path is opened beneath the folder, and no link on the way is followed: neither what a build made nor what was
//! there before leads a file elsewhere. Owners are ours, as with buildx.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat2};
use wharf_grpc::{Call, Code, Status};
use wharf_proto_buildkit::fsutil::{Packet, PacketType, Stat, mode};

use crate::exit::go_text;

/// Takes the folder.
///
/// # Errors
/// The daemon left, or sends a path that leads out; the disk failed.
pub async fn folder(path: &Path, mut call: Call) -> Result<(), Status> {
    let failed = |e: &io::Error| Status::new(Code::Unknown, format!("{}: {}", path.display(), go_text(e)));
    std::fs::create_dir_all(path).map_err(|e| failed(&e))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(&e.into()))?;
    let mut taking = Taking { root, open: HashMap::new(), folders: Vec::new() };
    let (mut id, mut all, mut finished) = (0u32, false, false);
    let packet = |kind: PacketType| Packet { r#type: kind as i32, ..Packet::default() };
    while let Some(message) = call.receiver.message::<Packet>().await? {
        match PacketType::try_from(message.r#type) {
            Ok(PacketType::Stat) => match message.stat {
                Some(stat) => {
                    let name = String::from_utf8_lossy(&stat.path).into_owned();
                    let wrong = |e: io::Error| Status::new(Code::Unknown, format!("{name}: {}", go_text(&e)));
                    if taking.stat(id, stat).map_err(wrong)? {
                        call.sender.send(&Packet { id, ..packet(PacketType::Req) }).await?;
                    }
                    id += 1;
                }
                None => all = true,
            },
            Ok(PacketType::Data) => taking.data(message.id, &message.data).map_err(|e| failed(&e))?,
            Ok(PacketType::Fin) => return taking.finish().map_err(|e| failed(&e)),
            Ok(PacketType::Err) => {
                let text = String::from_utf8_lossy(&message.data).into_owned();
                return Err(Status::new(Code::Unknown, format!("error from sender: {text}")));
            }
            _ => {}
        }
        if all && taking.open.is_empty() && !finished {
            finished = true;
            call.sender.send(&packet(PacketType::Fin)).await?;
        }
    }
    taking.finish().map_err(|e| failed(&e))
}

struct Taking {
    root: OwnedFd,
    open: HashMap<u32, (File, Stat)>,
    /// Their times are set last: filling a folder changes them.
    folders: Vec<Stat>,
}

fn hostile() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the daemon sent a path that leaves the folder")
}

/// The place of a path: the folder, and the last name in it.
fn place<'p>(root: &OwnedFd, path: &'p [u8]) -> io::Result<(OwnedFd, &'p OsStr)> {
    if path.split(|b| *b == b'/').any(|p| p.is_empty() || p == b"." || p == b"..") || path.contains(&0) {
        return Err(hostile());
    }
    let (above, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok((openat2(root, OsStr::from_bytes(above), flags, Mode::empty(), strict)?, OsStr::from_bytes(name)))
}

fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = stat.mod_time.rem_euclid(1_000_000_000);
    let time = Timespec { tv_sec: stat.mod_time.div_euclid(1_000_000_000), tv_nsec: nanoseconds as _ };
    Timestamps { last_access: time, last_modification: time }
}

impl Taking {
    /// Takes what is said of a path; returns whether its content is wanted.
    fn stat(&mut self, id: u32, stat: Stat) -> io::Result<bool> {
        let (folder, name) = place(&self.root, &stat.path)?;
        let bits = Mode::from_raw_mode(mode::permissions(stat.mode));
        let is_folder = stat.mode & mode::DIR != 0;
        let there = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let there = there.map(|s| FileType::from_raw_mode(s.st_mode));
        match there {
            Some(FileType::Directory) if is_folder => {}
            Some(_) => wharf_archive::remove_tree(folder.as_fd(), name)?,
            None => {}
        }
        if is_folder {
            if there != Some(FileType::Directory) {
                rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o700))?;
            }
            self.folders.push(stat);
            return Ok(false);
        }
        if stat.mode & mode::SYMLINK != 0 {
            rustix::fs::symlinkat(OsStr::from_bytes(&stat.linkname), &folder, name)?;
            rustix::fs::utimensat(&folder, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(false);
        }
        if stat.mode & mode::TYPE != 0 {
            let kind = match stat.mode & mode::TYPE {
                mode::NAMED_PIPE => FileType::Fifo,
                mode::DEVICE => FileType::BlockDevice,
                k if k == mode::DEVICE | mode::CHAR_DEVICE => FileType::CharacterDevice,
                _ => return Ok(false),
            };
            let part = |n: i64| u32::try_from(n).unwrap_or(0);
            rustix::fs::mknodat(
                &folder,
                name,
                kind,
                bits,
                rustix::fs::makedev(part(stat.devmajor), part(stat.devminor)),
            )?;
            return Ok(false);
        }
        if !stat.linkname.is_empty() {
            let (first, first_name) = place(&self.root, &stat.linkname)?;
            rustix::fs::linkat(&first, first_name, &folder, name, AtFlags::empty())?;
            return Ok(false);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o600))?;
        self.open.insert(id, (File::from(file), stat));
        Ok(true)
    }

    fn data(&mut self, id: u32, data: &[u8]) -> io::Result<()> {
        let (file, _) = self.open.get_mut(&id).ok_or_else(hostile)?;
        if !data.is_empty() {
            return file.write_all(data);
        }
        let Some((file, stat)) = self.open.remove(&id) else { return Err(hostile()) };
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode::permissions(stat.mode)))?;
        Ok(rustix::fs::futimens(&file, &times(&stat))?)
    }

    fn finish(&mut self) -> io::Result<()> {
        for stat in self.folders.drain(..).rev() {
            let (folder, name) = place(&self.root, &stat.path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let inner = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&inner, Mode::from_raw_mode(mode::permissions(stat.mode)))?;
            rustix::fs::futimens(&inner, &times(&stat))?;
        }
        Ok(())
    }
}
