//! The files of one log: the current one and the rotated ones beside it.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use flate2::read::GzDecoder;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::LogError;
use crate::record::{Format, Record, Step};

/// More than the longest message takes in a file.
const FIRST: usize = 256 * 1024;

/// One file of a log, opened.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    /// Inode number the file had while it was written.
    pub(crate) inode: u64,
    /// Inode number of the file as it is, compressed perhaps.
    stored_as: u64,
    /// Where reading ends for good, in this file.
    pub(crate) end: Option<u64>,
    compressed: bool,
    name: String,
}

impl Source {
    /// A file that is open and plain already.
    pub(crate) fn plain(file: File, inode: u64, end: Option<u64>) -> Source {
        Source { file, inode, stored_as: inode, end, compressed: false, name: String::new() }
    }

    /// The present end of the file; `None` if it is compressed, because then it does not grow.
    pub(crate) fn present_end(&self) -> Result<Option<u64>, LogError> {
        let meta = self.file.metadata().map_err(|e| LogError::file("stat", &self.name, e))?;
        Ok((!self.compressed).then_some(meta.len()))
    }

    /// The time of the first message; empty if there is none yet.
    pub(crate) fn first(&self, format: Format) -> Result<String, LogError> {
        use std::io::Read;
        use std::os::unix::fs::FileExt;
        let failed = |e| LogError::file("read", &self.name, e);
        let mut start = vec![0; FIRST];
        let mut held = 0;
        if self.compressed {
            let mut file = self.file.try_clone().map_err(failed)?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            let mut plain = GzDecoder::new(&file).take(FIRST as u64);
            start.clear();
            // A damaged file has no first message.
            let _ = plain.read_to_end(&mut start);
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
        } else {
            while held < start.len() {
                match self.file.read_at(&mut start[held..], held as u64).map_err(failed)? {
                    0 => break,
                    n => held += n,
                }
            }
            start.truncate(held);
        }
        let (mut record, mut used) = (Record::default(), 0);
        loop {
            match format.take(&start[used..], &mut record) {
                Step::Message(_) => return Ok(record.time),
                Step::Skip(len) => used += len,
                Step::Short => return Ok(String::new()),
            }
        }
    }

    /// The plain bytes. A compressed file is unpacked into an unnamed file first.
    pub(crate) fn into_plain(self, dir: &OwnedFd) -> Result<File, LogError> {
        if !self.compressed {
            return Ok(self.file);
        }
        let failed = |operation, e: std::io::Error| LogError::file(operation, &self.name, e);
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(0o600)) {
            Ok(fd) => fd,
            // Not every file system has unnamed files: memory does.
            Err(_) => rustix::fs::memfd_create("wharf-log", rustix::fs::MemfdFlags::CLOEXEC)
                .map_err(|e| failed("memfd", e.into()))?,
        };
        let mut plain = File::from(fd);
        std::io::copy(&mut GzDecoder::new(self.file), &mut plain).map_err(|e| failed("decompress", e))?;
        plain.seek(SeekFrom::Start(0)).map_err(|e| failed("seek", e))?;
        Ok(plain)
    }
}

/// Where a log is.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) dir: OwnedFd,
    pub(crate) name: String,
}

impl Files {
    /// Opens all files, oldest first, as one consistent series: a rotation in between starts the look again.
    pub(crate) fn open_all(&self) -> Result<Vec<Source>, LogError> {
        loop {
            let names = self.names()?;
            let mut sources = Vec::with_capacity(names.len());
            for (name, inode) in names.iter().rev() {
                sources.extend(self.open(name)?.filter(|s| s.stored_as == *inode));
            }
            if sources.len() == names.len() && self.names()? == names {
                return Ok(sources);
            }
        }
    }

    /// Names and inode numbers, newest first. While the writer moves files up there is one gap, so a series ends where
    /// two names are missing.
    fn names(&self) -> Result<Vec<(String, u64)>, LogError> {
        let mut found = Vec::new();
        found.extend(self.inode(&self.name)?.map(|inode| (self.name.clone(), inode)));
        let mut missing = 0;
        for n in 1.. {
            let mut name = format!("{}.{n}", self.name);
            let mut inode = self.inode(&name)?;
            if inode.is_none() {
                name.push_str(".gz");
                inode = self.inode(&name)?;
            }
            match inode {
                Some(inode) => {
                    missing = 0;
                    found.push((name, inode));
                }
                None if missing == 1 => break,
                None => missing += 1,
            }
        }
        Ok(found)
    }

    /// The inode number of the file under the current name.
    pub(crate) fn current_inode(&self) -> Result<Option<u64>, LogError> {
        self.inode(&self.name)
    }

    fn inode(&self, name: &str) -> Result<Option<u64>, LogError> {
        match rustix::fs::statat(&self.dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(LogError::file("stat", name, e)),
        }
    }

    /// The files newer than the one with this inode number, oldest first. If that file is gone, all that is left: the log was
    /// rotated away faster than it was read.
    pub(crate) fn newer_than(&self, inode: u64) -> Result<Vec<Source>, LogError> {
        let mut all = self.open_all()?;
        // The number of a file that was compressed and removed is used again: the newest is ours, because we hold it open.
        match all.iter().rposition(|s| s.inode == inode) {
            Some(at) => Ok(all.split_off(at + 1)),
            None => Ok(all),
        }
    }

    fn open(&self, name: &str) -> Result<Option<Source>, LogError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(LogError::file("open", name, e)),
        };
        let failed = |e| LogError::file("read", name, e);
        let stored_as = file.metadata().map_err(failed)?.ino();
        let compressed = name.ends_with(".gz");
        let mut inode = stored_as;
        if compressed {
            let decoder = GzDecoder::new(&file);
            let comment = decoder.header().and_then(|h| str::from_utf8(h.comment()?).ok());
            inode = comment.and_then(|c| c.strip_prefix("inode ")?.parse().ok()).unwrap_or(inode);
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
        }
        Ok(Some(Source { file, inode, stored_as, end: None, compressed, name: name.to_owned() }))
    }
}
