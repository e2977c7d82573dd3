//! Sending a folder to a client, by the same protocol by which it sends contexts.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use wharf_proto_buildkit::fsutil::{Packet, PacketType, Stat, mode};

use crate::BuildError;
use crate::local::in_place;
use crate::progress::Step;
use crate::session::Session;
use crate::tree::{Tree, look_at, names};

/// Bytes of one data packet.
const CHUNK: usize = 32 << 10;

/// Sends trees, each into a folder of its name; the one without a name into the folder itself.
///
/// # Errors
/// The client left, or cannot write it.
pub async fn folders(
    session: &Arc<Session>,
    number: usize,
    trees: &[(String, Tree)],
    step: &Step,
) -> Result<(), BuildError> {
    let (sender, answer) = session.send_result(number, &[]).await?;
    let mut stats = Vec::new();
    for (name, tree) in trees {
        let root = tree.folder(Path::new("/"))?;
        if !name.is_empty() {
            let stat = Stat { path: name.clone().into_bytes(), mode: mode::DIR | 0o755, ..Stat::default() };
            stats.push(Stat { mod_time: now_nanos(), ..stat });
        }
        in_place(|| walk(root.as_fd(), Path::new(name), &mut stats))?;
    }
    let packet = |kind: PacketType| Packet { r#type: kind as i32, ..Packet::default() };
    for stat in &stats {
        sender.send(&Packet { stat: Some(stat.clone()), ..packet(PacketType::Stat) }).await?;
    }
    sender.send(&packet(PacketType::Stat)).await?;
    let mut receiver = answer.await?;
    let mut sent = 0i64;
    while let Some(asked) = receiver.message::<Packet>().await? {
        match PacketType::try_from(asked.r#type) {
            Ok(PacketType::Req) => {
                let unknown = || BuildError::invalid("the client asked for a file that there is not");
                let stat = usize::try_from(asked.id).ok().and_then(|n| stats.get(n)).ok_or_else(unknown)?;
                let path = PathBuf::from(std::ffi::OsString::from_vec(stat.path.clone()));
                let found = trees.iter().find_map(|(name, tree)| Some((tree, path.strip_prefix(name).ok()?)));
                let Some((tree, path)) = found else { return Err(unknown()) };
                let mut file = std::fs::File::from(tree.open(path, OFlags::RDONLY | OFlags::NOFOLLOW)?);
                loop {
                    let mut data = vec![0; CHUNK];
                    let n = in_place(|| file.read(&mut data))?;
                    data.truncate(n);
                    sent += n as i64;
                    sender.send(&Packet { id: asked.id, data, ..packet(PacketType::Data) }).await?;
                    if n == 0 {
                        break;
                    }
                }
                step.status("copying files", sent, 0, false);
            }
            Ok(PacketType::Fin) => {
                sender.send(&packet(PacketType::Fin)).await?;
                break;
            }
            Ok(PacketType::Err) => {
                return Err(BuildError::invalid(format!(
                    "error from receiver: {}",
                    String::from_utf8_lossy(&asked.data)
                )));
            }
            _ => {}
        }
    }
    drop(sender);
    while receiver.bytes().await?.is_some() {}
    step.status("copying files", sent, sent, true);
    Ok(())
}

fn now_nanos() -> i64 {
    i64::try_from(wharf_types::Timestamp::now().unix_nanos()).unwrap_or(0)
}

/// Lists a tree in the order that receivers expect: folders before what is in them, names sorted within a folder.
pub(crate) fn walk(folder: BorrowedFd<'_>, at: &Path, out: &mut Vec<Stat>) -> std::io::Result<()> {
    for name in names(folder)? {
        let stat = look_at(folder, &name)?;
        let path = at.join(&name);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            continue;
        }
        let linkname = match kind {
            FileType::Symlink => rustix::fs::readlinkat(folder, &name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        out.push(Stat {
            path: path.as_os_str().as_bytes().to_vec(),
            mode: mode::of_stat(stat.st_mode),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == FileType::RegularFile { stat.st_size } else { 0 },
            mod_time: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
            linkname,
            devmajor: i64::from(rustix::fs::major(stat.st_rdev)),
            devminor: i64::from(rustix::fs::minor(stat.st_rdev)),
            ..Stat::default()
        });
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let inner = rustix::fs::openat(folder, &name, flags, rustix::fs::Mode::empty())?;
            walk(inner.as_fd(), &path, out)?;
        }
    }
    Ok(())
}
