//! Messages of `github.com/tonistiigi/fsutil/types`: how BuildKit's clients send folders.
//!
//! Paths are declared as bytes, which is the same on the wire: names need not be UTF-8.
#![allow(missing_docs)] // Names and numbers are the protocol's; its documentation explains them.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PacketType {
    Stat = 0,
    Req = 1,
    Data = 2,
    Fin = 3,
    Err = 4,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    #[prost(enumeration = "PacketType", tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    #[prost(uint32, tag = "3")]
    pub id: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// Modes are Go's `os.FileMode`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    #[prost(int64, tag = "5")]
    pub size: i64,
    #[prost(int64, tag = "6")]
    pub mod_time: i64,
    #[prost(bytes = "vec", tag = "7")]
    pub linkname: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub devmajor: i64,
    #[prost(int64, tag = "9")]
    pub devminor: i64,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub xattrs: std::collections::BTreeMap<String, Vec<u8>>,
}

/// Go's `os.FileMode` bits.
pub mod mode {
    pub const DIR: u32 = 1 << 31;
    pub const SYMLINK: u32 = 1 << 27;
    pub const DEVICE: u32 = 1 << 26;
    pub const NAMED_PIPE: u32 = 1 << 25;
    pub const SOCKET: u32 = 1 << 24;
    pub const SETUID: u32 = 1 << 23;
    pub const SETGID: u32 = 1 << 22;
    pub const CHAR_DEVICE: u32 = 1 << 21;
    pub const STICKY: u32 = 1 << 20;
    /// Everything that is not a permission.
    pub const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE;

    /// The permission bits in the form of chmod(2).
    pub fn permissions(mode: u32) -> u32 {
        let special = [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)];
        special.iter().filter(|(bit, _)| mode & bit != 0).fold(mode & 0o777, |all, (_, bit)| all | bit)
    }

    /// From stat(2)'s `st_mode`.
    pub fn of_stat(mode: u32) -> u32 {
        let kind = match mode & 0o170_000 {
            0o040_000 => DIR,
            0o120_000 => SYMLINK,
            0o060_000 => DEVICE,
            0o020_000 => DEVICE | CHAR_DEVICE,
            0o010_000 => NAMED_PIPE,
            0o140_000 => SOCKET,
            _ => 0,
        };
        let special = [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)];
        special.iter().filter(|(_, bit)| mode & bit != 0).fold(kind | (mode & 0o777), |all, (bit, _)| all | bit)
    }
}
