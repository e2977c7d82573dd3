//! Docker's default profile, worked out for one container.
//!
//! Equal in effect to `profiles/seccomp/default.json` of moby on x86-64 and arm64, with one tightening: [`socket_rules`].

use wharf_oci::runtime::{Arg, LinuxSeccomp, SeccompAction, SeccompOperator, SyscallRule};

use crate::arch::Arch;

/// What Docker's default profile depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The container's bounding set, as `CAP_…` names. Privileged containers get no profile at all: do not ask for one.
    pub capabilities: &'a [String],
    /// The native architecture of the container.
    pub arch: Arch,
}

/// Allowed to every container.
const ALWAYS: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
    getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
    linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget
    semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
    setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt
    shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
    stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
    vmsplice wait4 waitid waitpid write writev
";

/// Allowed on x86-64 besides.
const X86_64: &str = "arch_prctl modify_ldt";

/// Allowed on arm64 besides; all but the first are of 32-bit processes.
const AARCH64: &str = "sync_file_range2 arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls";

/// Allowed to containers with a capability: the kernel checks the capability once more.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The execution domains that personality(2) may ask for: Linux, with and without UNAME26, 32-bit, both; and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`: not without CAP_SYS_ADMIN.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// Returns Docker's default profile for a container.
pub fn default_profile(situation: Situation<'_>) -> LinuxSeccomp {
    let has = |capability: &str| situation.capabilities.iter().any(|c| c == capability);
    let mut names: Vec<&str> = ALWAYS.split_whitespace().collect();
    let (native, architectures): (_, &[Arch]) = match situation.arch {
        Arch::X86_64 | Arch::X86 | Arch::X32 => (X86_64, &[Arch::X86_64, Arch::X86, Arch::X32]),
        Arch::Aarch64 | Arch::Arm => (AARCH64, &[Arch::Aarch64, Arch::Arm]),
    };
    names.extend(native.split_whitespace());
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            names.extend(calls.split_whitespace());
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut syscalls = vec![rule(names, SeccompAction::Allow, None)];
    syscalls.extend(socket_rules());
    syscalls.extend(PERSONALITIES.map(|p| {
        rule(
            ["personality"],
            SeccompAction::Allow,
            Some(Arg { index: 0, value: p, value_two: 0, op: SeccompOperator::Eq }),
        )
    }));
    if !has("CAP_SYS_ADMIN") {
        let no_namespaces = Arg { index: 0, value: NAMESPACE_FLAGS, value_two: 0, op: SeccompOperator::MaskedEq };
        syscalls.push(rule(["clone"], SeccompAction::Allow, Some(no_namespaces)));
        // clone3's flags are in memory, where a filter cannot look; ENOSYS makes the C library fall back to clone.
        syscalls
            .push(SyscallRule { errno_ret: Some(libc::ENOSYS as u32), ..rule(["clone3"], SeccompAction::Errno, None) });
    }
    LinuxSeccomp {
        default_action: SeccompAction::Errno,
        default_errno_ret: Some(libc::EPERM as u32),
        architectures: architectures.iter().map(|a| a.oci().to_owned()).collect(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

/// The profile of a container with the capabilities that Docker gives by default, on this machine. Of those only CAP_SYS_CHROOT
/// opens system calls.
pub fn usual_profile() -> LinuxSeccomp {
    default_profile(Situation { capabilities: &["CAP_SYS_CHROOT".to_owned()], arch: Arch::NATIVE })
}

fn rule<'a>(names: impl IntoIterator<Item = &'a str>, action: SeccompAction, arg: Option<Arg>) -> SyscallRule {
    SyscallRule {
        names: names.into_iter().map(str::to_owned).collect(),
        action,
        errno_ret: None,
        args: arg.into_iter().collect(),
    }
}

/// Allows socket(2) for every address family but AF_ALG (38) and AF_VSOCK (40).
///
/// Docker's rules, `family < 38 || family == 39 || family > 40`, compare 64 bits while the kernel takes the family as an
/// `int`: `1 << 32 | 38` passes them and opens AF_ALG (CVE-2026-31431's door). Ours look at the low half, as powers of two up
/// to 127; families end at 45.
fn socket_rules() -> impl Iterator<Item = SyscallRule> {
    const ALLOWED: [(u64, u64); 9] = [
        (0xffff_ffe0, 0),  // 0 to 31
        (0xffff_fffc, 32), // 32 to 35
        (0xffff_fffe, 36), // 36 and 37
        (0xffff_ffff, 39),
        (0xffff_ffff, 41),
        (0xffff_fffe, 42), // 42 and 43
        (0xffff_fffc, 44), // 44 to 47
        (0xffff_fff0, 48), // 48 to 63
        (0xffff_ffc0, 64), // 64 to 127
    ];
    ALLOWED.into_iter().map(|(mask, value)| {
        let arg = Arg { index: 0, value: mask, value_two: value, op: SeccompOperator::MaskedEq };
        rule(["socket"], SeccompAction::Allow, Some(arg))
    })
}
