//! The one thing the runtime reads from a container's user database: the home folder of a user id.
//!
//! The file is the container's and hostile: a FIFO in its place must not hold us up (CVE-2024-9676), nor a huge file.

use rustix::fs::{CWD, FileType, Mode, OFlags, RawMode, openat};

use crate::weaken::is_dropped;

/// More of it is not read.
const LIMIT: usize = 1 << 20;

/// The home folder of `uid` by `/etc/passwd` of the root we are in.
pub(crate) fn home_of(uid: u32) -> Option<Vec<u8>> {
    let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    flags.set(OFlags::NONBLOCK, !is_dropped("user-database"));
    let file = openat(CWD, c"/etc/passwd", flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode as RawMode);
    if kind != FileType::RegularFile && !is_dropped("user-database") {
        return None;
    }
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    while text.len() < LIMIT {
        match rustix::io::read(&file, &mut buffer).ok()? {
            0 => break,
            n => text.extend_from_slice(&buffer[..n]),
        }
    }
    find(&text, uid)
}

/// `name:password:uid:gid:comment:home:shell` (passwd(5)).
fn find(text: &[u8], uid: u32) -> Option<Vec<u8>> {
    text.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let id = std::str::from_utf8(fields.nth(2)?).ok()?;
        if id.parse() != Ok(uid) {
            return None;
        }
        let home = fields.nth(2)?;
        (!home.is_empty() && !home.contains(&0)).then(|| home.to_vec())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_a_user_is_found_by_number() {
        let text = b"root:x:0:0:root:/root:/bin/sh\nbroken\nu:x:7:7::/home/u:/bin/sh\nnohome:x:8:8:::\n";
        assert_eq!(find(text, 7).as_deref(), Some(b"/home/u".as_slice()));
        assert_eq!(find(text, 0).as_deref(), Some(b"/root".as_slice()));
        assert_eq!((find(text, 8), find(text, 9)), (None, None));
    }

    proptest::proptest! {
        #[test]
        fn foreign_bytes_never_panic(text: Vec<u8>, uid: u32) {
            let _ = find(&text, uid);
        }
    }
}
