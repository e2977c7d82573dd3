//! The architectures filters are made for, and the numbers of their system calls.

use std::fmt;

/// One system-call interface: what the kernel calls an architecture in `seccomp_data`, x32 apart from x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// x86-64 with 32-bit pointers; shares the audit value of x86-64, its numbers carry [`X32_BIT`].
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
}

/// Marks a system-call number as one of x32 (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// The architecture this program was built for; filters list it even when a profile does not.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// Returns the value of `seccomp_data.arch`, from `linux/audit.h`.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Tells whether arguments are compared in full; elsewhere only their low 32 bits, as libseccomp does.
    pub const fn has_wide_arguments(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// Returns the architecture of an OCI name such as `SCMP_ARCH_X86_64`, or nothing for one not built here.
    pub fn from_oci(name: &str) -> Option<Self> {
        match name {
            "SCMP_ARCH_X86_64" => Some(Self::X86_64),
            "SCMP_ARCH_X86" => Some(Self::X86),
            "SCMP_ARCH_X32" => Some(Self::X32),
            "SCMP_ARCH_AARCH64" => Some(Self::Aarch64),
            "SCMP_ARCH_ARM" => Some(Self::Arm),
            _ => None,
        }
    }

    /// Returns the OCI name.
    pub const fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.oci())
    }
}

/// Where a system call has no number on an architecture.
const ABSENT: u32 = u32::MAX;
const COLUMNS: usize = 5;

/// `name x86_64 x86 x32 aarch64 arm`, sorted by name; x32 without its marking bit. Linux 6.19's numbers.
///
/// One text and numbers beside it, rather than an array of `&str`: a shim is a position-independent process per
/// container, and five hundred string pointers would be five hundred relocations in memory of its own.
const TEXT: &str = include_str!("syscalls.txt");

#[derive(Clone, Copy)]
struct Row {
    start: u16,
    length: u8,
    numbers: [u32; COLUMNS],
}

const ROWS: usize = count_rows(TEXT.as_bytes());
static TABLE: [Row; ROWS] = parse(TEXT.as_bytes());

const fn count_rows(text: &[u8]) -> usize {
    let (mut at, mut rows) = (0, 0);
    while at < text.len() {
        if text[at] == b'\n' {
            rows += 1;
        }
        at += 1;
    }
    rows
}

const fn parse(text: &[u8]) -> [Row; ROWS] {
    let mut rows = [Row { start: 0, length: 0, numbers: [ABSENT; COLUMNS] }; ROWS];
    let (mut at, mut row) = (0, 0);
    while at < text.len() {
        let start = at;
        while text[at] != b' ' {
            at += 1;
        }
        rows[row].start = start as u16;
        rows[row].length = (at - start) as u8;
        let mut column = 0;
        while column < COLUMNS {
            at += 1;
            if text[at] == b'-' {
                at += 1;
            } else {
                let mut number = 0;
                while text[at] >= b'0' && text[at] <= b'9' {
                    number = number * 10 + (text[at] - b'0') as u32;
                    at += 1;
                }
                rows[row].numbers[column] = number;
            }
            column += 1;
        }
        assert!(text[at] == b'\n', "a row has as many numbers as there are columns");
        at += 1;
        row += 1;
    }
    rows
}

impl Row {
    fn name(&self) -> &'static str {
        let start = usize::from(self.start);
        &TEXT[start..start + usize::from(self.length)]
    }
}

/// A system call known by name.
#[derive(Clone, Copy)]
pub struct Syscall(&'static Row);

impl Syscall {
    /// Finds a system call by the name the kernel's headers give it.
    pub fn find(name: &str) -> Option<Self> {
        TABLE.binary_search_by(|row| row.name().cmp(name)).ok().map(|i| Self(&TABLE[i]))
    }

    /// Finds many: as [`Self::find`] of each, and faster where names come in alphabetical order.
    pub fn find_all<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Self> {
        let mut next = 0;
        names.filter_map(move |name| {
            let found = match TABLE.get(next) {
                Some(row) if row.name() == name => next,
                _ => TABLE.binary_search_by(|row| row.name().cmp(name)).ok()?,
            };
            next = found + 1;
            Some(Self(&TABLE[found]))
        })
    }

    /// Returns every system call of the table, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(Self)
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Returns the number that `seccomp_data.nr` has, for x32 with [`X32_BIT`]; nothing where the call is unknown.
    pub fn number(self, arch: Arch) -> Option<u32> {
        match self.0.numbers[arch.column()] {
            ABSENT => None,
            n if arch == Arch::X32 => Some(n | X32_BIT),
            n => Some(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_by_name() {
        let names: Vec<_> = Syscall::all().map(Syscall::name).collect();
        assert!(names.is_sorted());
        assert!(names.len() > 450);
    }

    #[test]
    fn numbers_are_those_the_c_library_knows() {
        let on = |name: &str, arch| Syscall::find(name).and_then(|s| s.number(arch));
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("seccomp", libc::SYS_seccomp),
            ("openat2", libc::SYS_openat2),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(on(name, Arch::NATIVE).map(i64::from), Some(number), "{name}");
        }
        assert_eq!(on("execve", Arch::X32), Some(0x4000_0208));
        assert_eq!(on("socketcall", Arch::X86), Some(102));
        assert_eq!(on("socketcall", Arch::X86_64), None);
        assert_eq!(on("set_tls", Arch::Arm), Some(0x000f_0005));
    }

    #[test]
    fn finding_many_is_finding_each() {
        let names = ["zzz", "read", "readahead", "accept", "", "accept4", "read", "write"];
        let each: Vec<_> = names.iter().filter_map(|n| Syscall::find(n)).map(Syscall::name).collect();
        let all: Vec<_> = Syscall::find_all(names.into_iter()).map(Syscall::name).collect();
        assert_eq!(all, each);
    }

    #[test]
    fn no_number_is_given_twice_on_one_architecture() {
        for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm] {
            let mut numbers: Vec<_> = Syscall::all().filter_map(|s| s.number(arch)).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            // sync_file_range2 and arm_sync_file_range are two names of 341 on 32-bit ARM.
            assert_eq!(all - numbers.len(), usize::from(arch == Arch::Arm), "{arch}");
        }
    }
}
