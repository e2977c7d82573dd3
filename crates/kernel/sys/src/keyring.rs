//! Session keyrings (keyctl(2)).

use std::ffi::CStr;
use std::io;

use crate::check;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
const KEYCTL_SETPERM: libc::c_long = 5;
const KEYCTL_DESCRIBE: libc::c_long = 6;

/// A key's serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(i32);

/// Joins the session keyring of that name, making it if there is none.
pub fn join_session(name: &CStr) -> io::Result<Key> {
    // SAFETY: the name is a NUL-terminated string that lives through the call.
    let key = check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(Key(key as i32))
}

/// The key's permission mask (keyctl_setperm(3)).
pub fn permissions(key: Key) -> io::Result<u32> {
    let mut text = [0u8; 512];
    // SAFETY: the kernel writes at most `text.len()` bytes into `text`.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key.0, text.as_mut_ptr(), text.len()) })?;
    // "type;uid;gid;perm;description"
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let field = text.split(|b| *b == b';').nth(3).ok_or_else(malformed)?;
    let field = std::str::from_utf8(field).map_err(|_| malformed())?;
    u32::from_str_radix(field, 16).map_err(|_| malformed())
}

/// Sets the key's permission mask.
pub fn set_permissions(key: Key, mask: u32) -> io::Result<()> {
    // SAFETY: two numbers are passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key.0, mask) }).map(drop)
}
