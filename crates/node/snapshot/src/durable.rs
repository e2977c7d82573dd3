//! Bringing a finished tree to disk, in the background and without bringing everyone else's data there.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, fsync, openat, syncfs};
use rustix::io::Errno;
use wharf_archive::Root;
use wharf_sys::writeback;

/// Unwritten data of all the system, in KiB, up to which one syncfs(2) is cheaper than an fsync(2) of each file.
const LITTLE: u64 = 64 << 10;

/// Bytes of one file that are waited for at a time: a thread that waits for the disk cannot be killed.
const PIECE: u64 = 32 << 20;

/// Brings a tree that nobody changes any more to disk: when it returns, it survives a power cut.
///
/// syncfs(2) alone would write down what every other program on the file system has in memory, which can be gigabytes, and
/// a process in it cannot end. So first this tree is written, file by file; if then little is left anywhere syncfs does
/// the rest, else an fsync of each file.
///
/// # Errors
/// What the kernel gives.
pub fn sync(folder: &OwnedFd) -> io::Result<()> {
    each(folder, &mut |file, kind| match kind {
        FileType::RegularFile => writeback::start(file, 0, 0),
        _ => Ok(()),
    })?;
    each(folder, &mut |file, kind| {
        let size = if kind == FileType::RegularFile { fstat(file)?.st_size.cast_unsigned() } else { 0 };
        (0..size.div_ceil(PIECE)).try_for_each(|piece| writeback::wait(file, piece * PIECE, PIECE))
    })?;
    if unwritten().is_some_and(|kilobytes| kilobytes < LITTLE) {
        return Ok(syncfs(folder)?);
    }
    each(folder, &mut |file, _| Ok(fsync(file)?))
}

/// KiB of all the system that are not on disk yet (proc_meminfo(5)).
fn unwritten() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()
    };
    Some(field("Dirty:")? + field("Writeback:")?)
}

/// Every regular file and directory of a tree, opened. Others have nothing but their entry. What cannot be opened any
/// more was removed.
fn each(top: &OwnedFd, act: &mut dyn FnMut(&OwnedFd, FileType) -> io::Result<()>) -> io::Result<()> {
    let root = Root::new(rustix::io::fcntl_dupfd_cloexec(top, 0)?);
    let mut waiting = vec![PathBuf::new()];
    // Reading a tree to sync it is no access that anyone wants to know of.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    while let Some(path) = waiting.pop() {
        let folder = match root.open(&path, flags | OFlags::DIRECTORY, Mode::empty()) {
            Ok(folder) => folder,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Not every file system says.
                FileType::Unknown => {
                    let found = rustix::fs::statat(folder.as_fd(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
                    found.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
                }
                kind => kind,
            };
            match kind {
                FileType::Directory => waiting.push(path.join(name)),
                FileType::RegularFile => match openat(folder.as_fd(), name, flags | OFlags::NONBLOCK, Mode::empty()) {
                    Ok(file) => act(&file, kind)?,
                    Err(Errno::NOENT | Errno::LOOP) => {}
                    Err(e) => return Err(e.into()),
                },
                _ => {}
            }
        }
        act(&folder, FileType::Directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_and_folder_is_visited_and_a_link_out_is_not() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        for name in ["top", "a/one", "a/b/two"] {
            fs::write(folder.path().join(name), "x").expect("file");
        }
        std::os::unix::fs::symlink("/etc", folder.path().join("a/out")).expect("link");
        let top = OwnedFd::from(fs::File::open(folder.path()).expect("open"));
        let (mut files, mut folders) = (0, 0);
        each(&top, &mut |_, kind| {
            *(if kind == FileType::Directory { &mut folders } else { &mut files }) += 1;
            Ok(())
        })
        .expect("visited");
        assert_eq!((files, folders), (3, 3));
        sync(&top).expect("synced");
    }
}
