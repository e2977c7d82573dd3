//! The initial file system of a guest: a cpio archive in the kernel's `newc` form.

use std::io::{self, Write};

/// Writes entries one after the other; folders before what is in them.
pub struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    /// Adds a folder.
    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o040_755, &[], (0, 0))
    }

    /// Adds an executable file.
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, 0o100_755, content, (0, 0))
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, 0o120_777, target.as_bytes(), (0, 0))
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, numbers: (u32, u32)) -> io::Result<()> {
        self.entry(name, 0o020_600, &[], numbers)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[], (0, 0))?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], device: (u32, u32)) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        self.inode += 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device (2), size of name, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let header: String = fields.iter().map(|n| format!("{n:08x}")).collect();
        self.put(b"070701")?;
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let padding = (4 - self.written % 4) % 4;
        self.put(&[0; 3][..padding as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_start_at_multiples_of_four() {
        let mut archive = Archive::new(Vec::new());
        archive.file("abc", b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[..14], b"07070100000001");
        let second = bytes.windows(6).skip(1).position(|w| w == b"070701").unwrap() + 1;
        assert_eq!((second % 4, bytes.len() % 4), (0, 0));
        assert!(bytes[second..].windows(10).any(|w| w == b"TRAILER!!!"));
    }
}
