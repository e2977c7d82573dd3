//! Reading and writing the kernel's small files.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read, write};

use crate::CgroupError;

/// Writes a whole value with one write(2): the kernel takes each as one request.
pub fn put(path: &Path, value: &[u8]) -> Result<(), Errno> {
    let fd = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&fd, value).map(drop)
}

/// Writes a value; the error carries both path and value.
pub fn write_value(path: &Path, value: &str) -> Result<(), CgroupError> {
    put(path, value.as_bytes()).map_err(|e| CgroupError::Write {
        path: path.into(),
        value: value.to_owned(),
        source: e.into(),
    })
}

/// Reads a whole file.
pub fn get(path: &Path) -> Result<String, Errno> {
    let fd = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = read(&fd, &mut buffer)?;
        if n == 0 {
            return Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()));
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
}

/// Reads a file that may be absent: with another kernel, or without the feature.
pub fn get_if_present(path: &Path) -> Result<Option<String>, CgroupError> {
    match get(path) {
        Ok(text) => Ok(Some(text)),
        // A device without statistics answers ENODEV or EOPNOTSUPP.
        Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(CgroupError::Read { path: path.into(), source: e.into() }),
    }
}

/// Reads one number; `max` is `u64::MAX`, an absent file 0.
pub fn number(path: &Path) -> Result<u64, CgroupError> {
    Ok(get_if_present(path)?.map_or(0, |text| parse_number(text.trim())))
}

/// Reads `name value` lines; an absent file has none.
pub fn table(path: &Path) -> Result<BTreeMap<String, u64>, CgroupError> {
    Ok(get_if_present(path)?.map_or_else(BTreeMap::new, |text| parse_table(&text)))
}

/// Parses a number as the kernel writes them: unsigned, −1 or `max` for none.
pub fn parse_number(text: &str) -> u64 {
    match text {
        "max" | "-1" => u64::MAX,
        digits => digits.parse().unwrap_or(0),
    }
}

/// Parses `name value` lines; others are left out.
pub fn parse_table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), parse_number(value.trim())))
        })
        .collect()
}
