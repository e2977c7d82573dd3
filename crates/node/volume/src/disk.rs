//! Volumes with a size: an ext4 file system in a sparse file.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use crate::VolumeError;

/// The smallest file system that ext4 makes sense in.
const SMALLEST: u64 = 2 << 20;

/// Where mke2fs(8) is; never looked up in a path that somebody else could influence.
const PROGRAMS: &[&str] = &["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];

/// Makes a file of `size` bytes at `path` and an ext4 file system in it, whose root belongs to `owner`. Blocks.
///
/// Errors: NoQuota where mkfs.ext4 is missing or refuses.
pub fn make_disk(path: &Path, size: u64, owner: (u32, u32)) -> Result<(), VolumeError> {
    let failed = |operation: &'static str| {
        move |e: std::io::Error| VolumeError::File {
            operation,
            path: path.to_owned(),
            source: Errno::from_io_error(&e).unwrap_or(Errno::IO),
        }
    };
    if size < SMALLEST {
        return Err(VolumeError::NoQuota(format!("the least size is {SMALLEST} bytes")));
    }
    let program = PROGRAMS.iter().find(|p| Path::new(p).exists());
    let program = program.ok_or_else(|| VolumeError::NoQuota("there is no mkfs.ext4 on this host".to_owned()))?;
    let file = std::fs::File::create_new(path).map_err(failed("create"))?;
    file.set_len(size).map_err(failed("extend"))?;
    let (uid, gid) = owner;
    let made = Command::new(program)
        .args(["-q", "-F", "-m", "0", "-E", &format!("lazy_itable_init=1,root_owner={uid}:{gid}")])
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(failed("run mkfs.ext4 on"))?;
    if made.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&made.stderr);
    Err(VolumeError::NoQuota(format!("mkfs.ext4: {}", text.trim().lines().last().unwrap_or("failed"))))
}
