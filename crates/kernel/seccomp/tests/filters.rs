//! Filters answer every call as their profile says.

#![allow(missing_docs)]

mod machine;

use machine::{Call, check, run};
use proptest::prelude::*;
use wharf_oci::runtime::{Arg, LinuxSeccomp, SeccompAction, SeccompOperator, SyscallRule};
use wharf_seccomp::{Arch, CompileError, Situation, Syscall, X32_BIT, compile, default_profile};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const fn errno(n: i32) -> u32 {
    0x0005_0000 | n as u32
}
const EPERM: u32 = errno(libc::EPERM);
const ENOSYS: u32 = errno(libc::ENOSYS);
const ARCHS: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

fn profile(default: SeccompAction, syscalls: Vec<SyscallRule>) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: default,
        default_errno_ret: None,
        architectures: ARCHS.iter().map(|a| a.oci().to_owned()).collect(),
        flags: Vec::new(),
        listener_path: None,
        listener_metadata: None,
        syscalls,
    }
}

fn rule(names: &[&str], action: SeccompAction, args: &[Arg]) -> SyscallRule {
    SyscallRule { names: names.iter().map(|n| (*n).to_owned()).collect(), action, errno_ret: None, args: args.to_vec() }
}

fn arg(index: u32, op: SeccompOperator, value: u64) -> Arg {
    Arg { index, value, value_two: 0, op }
}

fn number(name: &str, arch: Arch) -> Option<u32> {
    Syscall::find(name).and_then(|s| s.number(arch))
}

fn call(name: &str, arch: Arch, args: [u64; 6]) -> Call {
    Call { number: number(name, arch).unwrap(), arch: arch.audit(), args }
}

fn capabilities(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// What the profile says about a call, computed rule by rule.
fn model(profile: &LinuxSeccomp, call: Call) -> u32 {
    let listed = |a: Arch| a == Arch::NATIVE || profile.architectures.iter().any(|n| n == a.oci());
    let marked = call.number >= X32_BIT;
    let Some(arch) = ARCHS.into_iter().find(|a| {
        a.audit() == call.arch && listed(*a) && (*a != Arch::X32 || marked) && (*a != Arch::X86_64 || !marked)
    }) else {
        return KILL;
    };
    let default = value(profile.default_action, profile.default_errno_ret);
    let named = |r: &SyscallRule| r.names.iter().any(|n| number(n, arch) == Some(call.number));
    let rules: Vec<_> =
        profile.syscalls.iter().filter(|r| named(r) && value(r.action, r.errno_ret) != default).collect();
    if let Some(always) = rules.iter().find(|r| r.args.is_empty()) {
        return value(always.action, always.errno_ret);
    }
    let matching = rules.iter().find(|r| {
        let repeated = r.args.iter().enumerate().any(|(i, a)| r.args[..i].iter().any(|b| a.index == b.index));
        if repeated { r.args.iter().any(|a| holds(a, arch, call)) } else { r.args.iter().all(|a| holds(a, arch, call)) }
    });
    if let Some(rule) = matching {
        return value(rule.action, rule.errno_ret);
    }
    let highest = profile.syscalls.iter().flat_map(|r| &r.names).filter_map(|n| number(n, arch)).max();
    let denying = !matches!(profile.default_action, SeccompAction::Allow | SeccompAction::Log)
        && profile.default_errno_ret != Some(libc::ENOSYS as u32);
    if denying && highest.is_some_and(|h| call.number > h) { ENOSYS } else { default }
}

fn value(action: SeccompAction, ret: Option<u32>) -> u32 {
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => 0,
        SeccompAction::KillProcess => 0x8000_0000,
        SeccompAction::Trap => 0x0003_0000,
        SeccompAction::Errno => 0x0005_0000 | ret.unwrap_or(1) & 0xffff,
        SeccompAction::Trace => 0x7ff0_0000 | ret.unwrap_or(1) & 0xffff,
        SeccompAction::Allow => ALLOW,
        SeccompAction::Log => 0x7ffc_0000,
        SeccompAction::Notify => 0x7fc0_0000,
    }
}

fn holds(a: &Arg, arch: Arch, call: Call) -> bool {
    let wide = matches!(arch, Arch::X86_64 | Arch::Aarch64);
    let cut = |v: u64| if wide { v } else { v & 0xffff_ffff };
    let (have, want) = (cut(call.args[a.index as usize]), cut(a.value));
    match a.op {
        SeccompOperator::Ne => have != want,
        SeccompOperator::Lt => have < want,
        SeccompOperator::Le => have <= want,
        SeccompOperator::Eq => have == want,
        SeccompOperator::Ge => have >= want,
        SeccompOperator::Gt => have > want,
        SeccompOperator::MaskedEq => have & want == cut(a.value_two) & want,
    }
}

/// Numbers around every system call, the x32 mark and the end.
fn numbers() -> Vec<u32> {
    let mut out: Vec<u32> = (0..600).chain(X32_BIT..X32_BIT + 600).collect();
    out.extend([0x000f_0000, 0x000f_0001, 0x000f_0005, 0x000f_0007, X32_BIT - 1, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
    out
}

#[test]
fn the_default_profile_answers_every_number_as_its_rules_say() {
    for caps in [capabilities(&[]), capabilities(&["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE"])] {
        for native in [Arch::X86_64, Arch::Aarch64] {
            let profile = default_profile(Situation { capabilities: &caps, arch: native });
            let program = compile(&profile).unwrap();
            check(&program);
            for arch in ARCHS {
                let looked_at = ["socket", "clone", "personality"].map(|name| self::number(name, arch));
                for number in numbers() {
                    let firsts: &[u64] = if looked_at.contains(&Some(number)) {
                        &[0, 8, 37, 38, 39, 40, 41, 127, 128, 1 << 32 | 38, 0x7e02_0000, 0xffff_ffff, u64::MAX]
                    } else {
                        &[0]
                    };
                    for first in firsts {
                        let call = Call { number, arch: arch.audit(), args: [*first, 0, 0, 0, 0, 0] };
                        assert_eq!(run(&program, call), model(&profile, call), "{native} {arch} {call:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_default_profile_blocks_what_dockers_blocks() {
    let caps = capabilities(&["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    let program = compile(&default_profile(Situation { capabilities: &caps, arch: Arch::X86_64 })).unwrap();
    let ask = |name, first| run(&program, call(name, Arch::X86_64, [first, 0, 0, 0, 0, 0]));
    for denied in [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "add_key",
        "reboot",
        "swapon",
        "kexec_load",
        "init_module",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "open_by_handle_at",
        "fsopen",
        "pivot_root",
        "acct",
        "quotactl",
        "settimeofday",
        "iopl",
        "syslog",
        "move_pages",
        "mbind",
        "nfsservctl",
        "vhangup",
        "chroot",
    ] {
        assert_eq!(ask(denied, 0), EPERM, "{denied}");
    }
    for allowed in [
        "read",
        "execve",
        "mseal",
        "statx",
        "ptrace",
        "arch_prctl",
        "openat2",
        "futex_waitv",
        "chown",
        "landlock_add_rule",
    ] {
        assert_eq!(ask(allowed, 0), ALLOW, "{allowed}");
    }
    assert_eq!(ask("clone3", 0), ENOSYS);
    assert_eq!(ask("clone", 0x0001_0000), ALLOW);
    assert_eq!(ask("clone", 0x1000_0000), EPERM, "a user namespace");
    assert_eq!(ask("personality", 0x0004_0000), EPERM, "ADDR_NO_RANDOMIZE");
    for family in [38_u64, 40] {
        assert_eq!(ask("socket", family), EPERM);
    }
    for family in [0_u64, 1, 2, 10, 16, 17, 31, 32, 37, 39, 41, 44, 45] {
        assert_eq!(ask("socket", family), ALLOW, "{family}");
    }
    let newer = Call { number: 500, arch: Arch::X86_64.audit(), args: [0; 6] };
    assert_eq!(run(&program, newer), ENOSYS, "calls newer than the profile");
}

#[test]
fn cve_2026_31431_high_bits_of_a_family_do_not_open_af_alg() {
    let program = compile(&default_profile(Situation { capabilities: &[], arch: Arch::X86_64 })).unwrap();
    for family in [1 << 32 | 38, 7 << 32 | 40, u64::MAX << 32 | 38] {
        assert_eq!(run(&program, call("socket", Arch::X86_64, [family, 0, 0, 0, 0, 0])), EPERM, "{family:#x}");
    }
    assert_eq!(run(&program, call("socket", Arch::X86_64, [7 << 32 | 2, 0, 0, 0, 0, 0])), ALLOW);
}

#[test]
fn a_capability_opens_its_calls() {
    for (capability, name) in [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "clone3"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_MODULE", "finit_module"),
    ] {
        let caps = capabilities(&[capability]);
        let program = compile(&default_profile(Situation { capabilities: &caps, arch: Arch::X86_64 })).unwrap();
        assert_eq!(run(&program, call(name, Arch::X86_64, [0; 6])), ALLOW, "{capability} {name}");
    }
}

#[test]
fn a_denying_default_of_enosys_needs_no_newer_calls() {
    let mut p = profile(SeccompAction::Errno, vec![rule(&["read"], SeccompAction::Allow, &[])]);
    p.default_errno_ret = Some(libc::ENOSYS as u32);
    let program = compile(&p).unwrap();
    assert_eq!(run(&program, call("write", Arch::X86_64, [0; 6])), ENOSYS);
}

#[test]
fn of_two_unconditional_rules_the_first_wins_as_with_libseccomp() {
    let both = vec![rule(&["mkdir"], SeccompAction::Errno, &[]), rule(&["mkdir"], SeccompAction::Kill, &[])];
    let program = compile(&profile(SeccompAction::Allow, both)).unwrap();
    assert_eq!(run(&program, call("mkdir", Arch::X86_64, [0; 6])), EPERM);
}

#[test]
fn unknown_names_are_ignored() {
    let p = profile(SeccompAction::Allow, vec![rule(&["no_such_call", "mkdir"], SeccompAction::Errno, &[])]);
    assert_eq!(run(&compile(&p).unwrap(), call("mkdir", Arch::X86_64, [0; 6])), EPERM);
}

#[test]
fn calls_of_one_rule_share_its_code() {
    let names: Vec<&str> = Syscall::all().map(Syscall::name).collect();
    let args = [arg(0, SeccompOperator::Gt, 1 << 40), arg(1, SeccompOperator::Ne, 7)];
    let program = compile(&profile(SeccompAction::Allow, vec![rule(&names, SeccompAction::Errno, &args)])).unwrap();
    assert!(program.instructions.len() < 400, "{}", program.instructions.len());
}

#[test]
fn bits_outside_of_a_mask_do_not_count() {
    let masked = Arg { index: 0, value: 0xff00, value_two: 0xff01, op: SeccompOperator::MaskedEq };
    let program =
        compile(&profile(SeccompAction::Allow, vec![rule(&["mkdir"], SeccompAction::Errno, &[masked])])).unwrap();
    assert_eq!(run(&program, call("mkdir", Arch::X86_64, [0xff42, 0, 0, 0, 0, 0])), EPERM);
    assert_eq!(run(&program, call("mkdir", Arch::X86_64, [0x0f01, 0, 0, 0, 0, 0])), ALLOW);
}

#[test]
fn hostile_profiles_are_refused_with_their_reason() {
    let mut notify = profile(SeccompAction::Allow, vec![rule(&["mkdir", "mknod"], SeccompAction::Notify, &[])]);
    assert_eq!(compile(&notify).unwrap_err(), CompileError::NotifyNobody);
    notify.listener_path = Some("/run/agent.sock".into());
    assert!(compile(&notify).unwrap().notifies());
    notify.syscalls[0].names.push("write".into());
    assert_eq!(compile(&notify).unwrap_err(), CompileError::NotifyWrite);
    assert_eq!(compile(&profile(SeccompAction::Notify, Vec::new())).unwrap_err(), CompileError::NotifyDefault);
    let index =
        profile(SeccompAction::Allow, vec![rule(&["mkdir"], SeccompAction::Errno, &[arg(6, SeccompOperator::Eq, 0)])]);
    assert_eq!(compile(&index).unwrap_err(), CompileError::Argument { syscall: "mkdir".into(), index: 6 });
    let mut flag = profile(SeccompAction::Allow, Vec::new());
    flag.flags = vec!["SECCOMP_FILTER_FLAG_NEW_LISTENER".into()];
    assert!(matches!(compile(&flag), Err(CompileError::Flag { .. })));
    let mut arch = profile(SeccompAction::Allow, Vec::new());
    arch.architectures.push("SCMP_ARCH_VAX".into());
    assert!(matches!(compile(&arch), Err(CompileError::Arch { .. })));
    let many: Vec<_> =
        (0..4000).map(|n| rule(&["read"], SeccompAction::Errno, &[arg(0, SeccompOperator::Eq, n)])).collect();
    assert!(matches!(compile(&profile(SeccompAction::Allow, many)), Err(CompileError::TooLong { .. })));
}

fn any_action() -> impl Strategy<Value = SeccompAction> {
    prop::sample::select(vec![
        SeccompAction::Kill,
        SeccompAction::KillProcess,
        SeccompAction::Trap,
        SeccompAction::Errno,
        SeccompAction::Trace,
        SeccompAction::Allow,
        SeccompAction::Log,
    ])
}

fn any_value() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 38, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, (1 << 32) + 1, u64::MAX - 1, u64::MAX];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<u64>()]
}

fn any_arg() -> impl Strategy<Value = Arg> {
    use SeccompOperator::{Eq, Ge, Gt, Le, Lt, MaskedEq, Ne};
    (0_u32..6, prop::sample::select(vec![Ne, Lt, Le, Eq, Ge, Gt, MaskedEq]), any_value(), any_value())
        .prop_map(|(index, op, value, value_two)| Arg { index, value, value_two, op })
}

fn any_rule() -> impl Strategy<Value = SyscallRule> {
    let all: Vec<&'static str> = Syscall::all().map(Syscall::name).collect();
    let few = vec!["read", "clone", "socket", "futex", "nowhere"];
    let names = prop_oneof![
        prop::collection::vec(prop::sample::select(few), 1..4),
        prop::collection::vec(prop::sample::select(all), 1..60)
    ];
    (names, any_action(), prop::option::of(0_u32..200), prop::collection::vec(any_arg(), 0..3))
        .prop_map(|(names, action, errno_ret, args)| SyscallRule { errno_ret, ..rule(&names, action, &args) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_profile_becomes_a_filter_that_answers_as_it_says(
        default in any_action(),
        default_errno in prop::option::of(0_u32..100),
        rules in prop::collection::vec(any_rule(), 0..12),
        listed in prop::collection::vec(prop::sample::select(ARCHS.to_vec()), 0..5),
        calls in prop::collection::vec((0_u32..600, any::<bool>(), prop::sample::select(ARCHS.to_vec()), prop::array::uniform6(any_value())), 60),
    ) {
        let mut p = profile(default, rules);
        p.default_errno_ret = default_errno;
        p.architectures = listed.iter().map(|a| a.oci().to_owned()).collect();
        let program = match compile(&p) {
            Ok(program) => program,
            Err(CompileError::TooLong { .. }) => return Ok(()),
            Err(e) => return Err(TestCaseError::fail(e.to_string())),
        };
        check(&program);
        for (number, marked, arch, args) in calls {
            let number = if marked { number | X32_BIT } else { number };
            let call = Call { number, arch: arch.audit(), args };
            prop_assert_eq!(run(&program, call), model(&p, call), "{:x?}", call);
        }
    }
}
