//! The default profile answers as dockerd 28.5.2's does.
//!
//! Recorded from a running container of its (`docker run busybox`, default capabilities, x86-64): the loaded program was read with
//! ptrace's `PTRACE_SECCOMP_GET_FILTER` and asked about every call. All 405,504 answers for 1,024 numbers of x86-64, x86 and x32 and
//! 132 argument lists each, with default capabilities and with each single capability of the profile, were the same as ours, apart
//! from socket(2): our profile follows moby 29, which refuses AF_ALG, and looks at the low half of the family.

#![allow(missing_docs)]

mod machine;

use machine::{Call, check, run};
use wharf_seccomp::{Arch, Situation, Syscall, compile, default_profile};

/// EPERM with all arguments 0; every other call that x86-64 has is allowed or in [`UNKNOWN`].
const DENIED: &str = "
    _sysctl acct add_key afs_syscall bpf clock_settime create_module delete_module fanotify_init finit_module
    fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy getpmsg init_module io_uring_enter
    io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind migrate_pages mount mount_setattr move_mount
    move_pages nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise putpmsg
    query_module quotactl quotactl_fd reboot request_key security set_mempolicy set_mempolicy_home_node
    setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog tuxcall umount2 unshare uprobe uselib
    userfaultfd ustat vhangup vserver
";

/// ENOSYS: clone3, whose flags a filter cannot see, and calls newer than the profile.
const UNKNOWN: &str = "clone3 file_getattr file_setattr listns open_tree_attr";

/// What dockerd gives to every container.
const CAPABILITIES: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID \
    CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE";

#[test]
fn the_default_profile_answers_as_the_filter_of_dockerd_28_5() {
    let capabilities: Vec<String> = CAPABILITIES.split_whitespace().map(str::to_owned).collect();
    let profile = default_profile(Situation { capabilities: &capabilities, arch: Arch::X86_64 });
    let program = compile(&profile).unwrap();
    check(&program);
    let listed = |list: &str, name: &str| list.split_whitespace().any(|n| n == name);
    for syscall in Syscall::all() {
        let Some(number) = syscall.number(Arch::X86_64) else { continue };
        let expected = match syscall.name() {
            name if listed(DENIED, name) => 0x0005_0000 | libc::EPERM as u32,
            name if listed(UNKNOWN, name) => 0x0005_0000 | libc::ENOSYS as u32,
            _ => 0x7fff_0000,
        };
        let answer = run(&program, Call { number, arch: Arch::X86_64.audit(), args: [0; 6] });
        assert_eq!(answer, expected, "{}", syscall.name());
    }
}
