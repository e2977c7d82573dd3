//! Loop devices: a block device whose content is a file (loop(4)).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::check;

const GET_FREE: libc::c_ulong = 0x4C82;
/// Linux 5.8.
const CONFIGURE: libc::c_ulong = 0x4C0A;
/// The device is released with its last user.
const AUTOCLEAR: u32 = 4;
/// Others may take a free device between asking for it and configuring it.
const ATTEMPTS: usize = 64;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device that is kept by this handle, and afterwards by whoever mounted it.
#[derive(Debug)]
pub struct Loop {
    path: PathBuf,
    _device: File,
}

impl Loop {
    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Puts a file behind a free loop device, writable.
pub fn attach(file: &Path) -> io::Result<Loop> {
    let backing = File::options().read(true).write(true).open(file)?;
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..ATTEMPTS {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) }.into())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        // SAFETY: all bytes zero is a valid loop_config: numbers and byte arrays only.
        let mut config: Config = unsafe { std::mem::zeroed() };
        config.fd = backing.as_raw_fd() as u32;
        config.info.flags = AUTOCLEAR;
        // SAFETY: LOOP_CONFIGURE reads a loop_config, which lives through the call.
        match check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) }.into()) {
            Ok(_) => return Ok(Loop { path, _device: device }),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}
