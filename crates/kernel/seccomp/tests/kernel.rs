//! The kernel takes our programs and answers as the profile says.
//!
//! A filter is loaded by a thread of its own (without TSYNC it binds only that thread), which then makes the calls.

#![allow(missing_docs)]

mod machine;

use std::os::fd::OwnedFd;
use std::thread;

use machine::{Call, check, run};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use wharf_oci::runtime::{Arg, LinuxSeccomp, SeccompAction, SeccompOperator, SyscallRule};
use wharf_seccomp::{Arch, Situation, Syscall, compile, default_profile};

/// Runs `body` under a filter.
fn under<T: Send + 'static>(profile: &LinuxSeccomp, body: impl FnOnce() -> T + Send + 'static) -> T {
    let program = compile(profile).unwrap();
    check(&program);
    let thread = thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        program.load().unwrap();
        body()
    });
    thread.join().unwrap()
}

#[test]
fn the_default_profile_blocks_for_real() {
    let profile = default_profile(Situation { capabilities: &[], arch: Arch::NATIVE });
    let filtered = under(&profile, || {
        let fsopen = rustix::mount::fsopen(c"tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
        let unshare = wharf_sys::clone::unshare(wharf_sys::clone::flags::NEWUTS);
        let name = rustix::system::sethostname(b"changed");
        let alg = socket(AddressFamily::from_raw(38), SocketType::SEQPACKET, None);
        let vsock = socket(AddressFamily::from_raw(40), SocketType::STREAM, None);
        (fsopen.err(), unshare.err().and_then(|e| e.raw_os_error()), name.err(), alg.err(), vsock.err())
    });
    let eperm = Some(Errno::PERM);
    assert_eq!(filtered, (eperm, Some(libc::EPERM), eperm, eperm, eperm));
}

#[test]
fn the_default_profile_lets_ordinary_work_through() {
    let profile = default_profile(Situation { capabilities: &[], arch: Arch::NATIVE });
    under(&profile, || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"text").unwrap();
        let child = std::process::Command::new("/bin/sh").args(["-c", "exit 3"]).status().unwrap();
        assert_eq!(child.code(), Some(3));
        socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        thread::spawn(|| 5).join().unwrap()
    });
}

/// lseek(2) passes on any 63-bit number: what a filter compares can be chosen freely, and does no harm.
#[test]
fn the_kernel_compares_arguments_as_the_interpreter_does() {
    use SeccompOperator::{Eq, Ge, Gt, Le, Lt, MaskedEq, Ne};
    const EDGES: [u64; 9] = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 1, i64::MAX as u64];
    for op in [Ne, Lt, Le, Eq, Ge, Gt, MaskedEq] {
        for value in EDGES {
            let rule = SyscallRule {
                names: vec!["lseek".into()],
                action: SeccompAction::Errno,
                errno_ret: Some(libc::EL2HLT as u32),
                args: vec![Arg { index: 1, value, value_two: value & 0xffff_ffff_0000_0001, op }],
            };
            let profile = LinuxSeccomp {
                default_action: SeccompAction::Allow,
                default_errno_ret: None,
                architectures: Vec::new(),
                flags: Vec::new(),
                listener_path: None,
                listener_metadata: None,
                syscalls: vec![rule],
            };
            let program = compile(&profile).unwrap();
            let file: OwnedFd = memfd_create("lseek", MemfdFlags::CLOEXEC).unwrap();
            let answers = under(&profile, move || EDGES.map(|n| seek(&file, SeekFrom::Start(n)) == Err(Errno::L2HLT)));
            let number = Syscall::find("lseek").and_then(|s| s.number(Arch::NATIVE)).unwrap();
            for (offset, refused) in EDGES.into_iter().zip(answers) {
                let call = Call { number, arch: Arch::NATIVE.audit(), args: [0, offset, 0, 0, 0, 0] };
                assert_eq!(run(&program, call) != 0x7fff_0000, refused, "{op:?} {value:#x} asked with {offset:#x}");
            }
        }
    }
}
