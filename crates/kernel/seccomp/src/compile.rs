//! From an OCI profile to a program.

use libc::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};
use wharf_error::{HasKind, Kind};
use wharf_oci::runtime::{Arg, LinuxSeccomp, SeccompAction, SeccompOperator, SyscallRule};
use wharf_sys::seccomp::flags;

use crate::arch::{Arch, Syscall, X32_BIT};
use crate::policy::{self, Case, Condition, Gaps, Test, Verdict};
use crate::program::{Compare, Program, Writer, offset};

/// Why a profile cannot become a filter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// With this default the runtime itself could make no call any more, not even to hand the listener over.
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    /// The runtime tells by write(2) that the listener can be handed over.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    /// Nobody would answer.
    #[error("SCMP_ACT_NOTIFY needs listenerPath, the socket of the agent that answers")]
    NotifyNobody,
    /// The profile names an architecture that is no OCI name.
    #[error("seccomp architecture {name:?} is not supported")]
    Arch {
        /// As the profile has it.
        name: String,
    },
    /// The profile names a flag that is no OCI name.
    #[error("seccomp flag {name:?} is not known or not supported by runc")]
    Flag {
        /// As the profile has it.
        name: String,
    },
    /// A condition is on an argument that does not exist.
    #[error("seccomp rule for {syscall} compares argument {index}; there are arguments 0 to 5")]
    Argument {
        /// The first call of the rule.
        syscall: String,
        /// As the profile has it.
        index: u32,
    },
    /// The kernel takes at most 4,096 instructions.
    #[error("seccomp filter has {instructions} instructions; the kernel takes at most {}", libc::BPF_MAXINSNS)]
    TooLong {
        /// What the profile came to.
        instructions: usize,
    },
}

impl HasKind for CompileError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotifyDefault | Self::NotifyWrite | Self::NotifyNobody => Kind::Invalid,
            Self::Arch { .. } | Self::Flag { .. } | Self::Argument { .. } | Self::TooLong { .. } => Kind::Invalid,
        }
    }
}

/// Makes the filter of a profile for the architectures it lists and the native one.
///
/// Semantics follow runc 1.3 with libseccomp 2.5: rules that say what the default says are dropped; several conditions on one
/// argument are alternatives, otherwise all must hold; an unconditional rule beats conditional ones; 32-bit architectures
/// compare low halves; an unlisted architecture kills the thread; without flags the filter is loaded with `SPEC_ALLOW`.
/// Where conditional rules of one call overlap, the earlier one wins; libseccomp orders them by what they compare.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, CompileError> {
    let notifies = check_notify(profile)?;
    let default = answer(profile.default_action, profile.default_errno_ret);
    let rules = profile
        .syscalls
        .iter()
        .filter(|r| !r.names.is_empty())
        .map(|r| Rule::new(r, default))
        .collect::<Result<Vec<_>, _>>()?;
    let archs = architectures(profile)?;
    let mut writer = Writer::default();
    let foreign = writer.give(SECCOMP_RET_KILL_THREAD);
    let mut next = foreign;
    for group in families(&archs).into_iter().rev() {
        let matched = write_family(&mut writer, &group, profile, &rules, default)?;
        next = writer.branch(Compare::Eq, group[0].audit(), matched, next);
    }
    writer.continue_at(next);
    writer.load(offset::ARCH);
    let instructions = writer.finish();
    if instructions.len() > libc::BPF_MAXINSNS as usize {
        return Err(CompileError::TooLong { instructions: instructions.len() });
    }
    let mut flags = load_flags(&profile.flags)?;
    if notifies {
        // The kernel does not take both, and there is only one thread to give the filter to.
        flags = (flags & !flags::TSYNC) | flags::NEW_LISTENER;
    }
    Ok(Program { instructions, flags })
}

/// Whether the filter asks an agent; what cannot work is refused, as by runc.
fn check_notify(profile: &LinuxSeccomp) -> Result<bool, CompileError> {
    if profile.default_action == SeccompAction::Notify {
        return Err(CompileError::NotifyDefault);
    }
    let mut asking = profile.syscalls.iter().filter(|r| r.action == SeccompAction::Notify).peekable();
    if asking.peek().is_none() {
        return Ok(false);
    }
    if asking.any(|rule| rule.names.iter().any(|name| name == "write")) {
        return Err(CompileError::NotifyWrite);
    }
    match profile.listener_path.as_deref() {
        None | Some("") => Err(CompileError::NotifyNobody),
        Some(_) => Ok(true),
    }
}

fn load_flags(names: &[String]) -> Result<u32, CompileError> {
    if names.is_empty() {
        return Ok(flags::SPEC_ALLOW);
    }
    names.iter().try_fold(0, |all, name| {
        let flag = match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => flags::TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => flags::LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags::SPEC_ALLOW,
            _ => return Err(CompileError::Flag { name: name.clone() }),
        };
        Ok(all | flag)
    })
}

/// Returns the listed architectures and the native one. Those of OCI that are not built here are left out: on this machine no
/// process can make a call of theirs.
fn architectures(profile: &LinuxSeccomp) -> Result<Vec<Arch>, CompileError> {
    let mut out = vec![Arch::NATIVE];
    for name in &profile.architectures {
        match Arch::from_oci(name) {
            Some(arch) if !out.contains(&arch) => out.push(arch),
            Some(_) => {}
            None if FOREIGN.contains(&name.as_str()) => {}
            None => return Err(CompileError::Arch { name: name.clone() }),
        }
    }
    Ok(out)
}

/// OCI architectures without system-call table here.
const FOREIGN: [&str; 15] = [
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
];

/// Groups architectures that the kernel passes with one audit value: x86-64 and x32.
fn families(archs: &[Arch]) -> Vec<Vec<Arch>> {
    let mut out: Vec<Vec<Arch>> = Vec::new();
    for arch in archs {
        match out.iter_mut().find(|g| g[0].audit() == arch.audit()) {
            Some(group) => group.push(*arch),
            None => out.push(vec![*arch]),
        }
    }
    out
}

fn write_family(
    writer: &mut Writer,
    group: &[Arch],
    profile: &LinuxSeccomp,
    rules: &[Rule],
    default: u32,
) -> Result<crate::program::Label, CompileError> {
    let section = |writer: &mut Writer, arch: Arch| -> Result<_, CompileError> {
        let verdicts = verdicts(arch, rules, default)?;
        let low = if arch == Arch::X32 { X32_BIT } else { 0 };
        Ok(policy::write(writer, arch, low, &verdicts, gaps(arch, profile, rules, default)))
    };
    if !group.iter().any(|a| matches!(a, Arch::X86_64 | Arch::X32)) {
        section(writer, group[0])?;
        return Ok(writer.load(offset::NUMBER));
    }
    let half = |writer: &mut Writer, arch| {
        if group.contains(&arch) { section(writer, arch) } else { Ok(writer.give(SECCOMP_RET_KILL_THREAD)) }
    };
    let x32 = half(writer, Arch::X32)?;
    let wide = half(writer, Arch::X86_64)?;
    writer.branch(Compare::Ge, X32_BIT, x32, wide);
    Ok(writer.load(offset::NUMBER))
}

/// Works out what numbers get that no rule is about. As runc, a denying default other than ENOSYS applies only up to the
/// highest number of any call the profile names; see runc's `libcontainer/seccomp/patchbpf`.
fn gaps(arch: Arch, profile: &LinuxSeccomp, rules: &[Rule], default: u32) -> Gaps {
    const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let permissive = matches!(profile.default_action, SeccompAction::Allow | SeccompAction::Log);
    if permissive || profile.default_errno_ret == Some(libc::ENOSYS as u32) {
        return Gaps { known: default, newer: None };
    }
    let highest = rules.iter().flat_map(|r| &r.syscalls).filter_map(|s| s.number(arch)).max();
    Gaps { known: default, newer: highest.map(|h| (h, ENOSYS)) }
}

/// Encodes an action as the filter's return value.
fn answer(action: SeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(libc::EPERM as u32) & SECCOMP_RET_DATA;
    match action {
        SeccompAction::Kill | SeccompAction::KillThread => SECCOMP_RET_KILL_THREAD,
        SeccompAction::KillProcess => SECCOMP_RET_KILL_PROCESS,
        SeccompAction::Trap => SECCOMP_RET_TRAP,
        SeccompAction::Errno => SECCOMP_RET_ERRNO | data,
        SeccompAction::Trace => SECCOMP_RET_TRACE | data,
        SeccompAction::Allow => SECCOMP_RET_ALLOW,
        SeccompAction::Log => SECCOMP_RET_LOG,
        SeccompAction::Notify => SECCOMP_RET_USER_NOTIF,
    }
}

/// A rule with its names looked up.
struct Rule {
    syscalls: Vec<Syscall>,
    answer: u32,
    /// Nothing where the rule says what the default says.
    effect: Option<Effect>,
}

enum Effect {
    Always,
    /// Each alternative is enough.
    When(Vec<Vec<Condition>>),
}

impl Rule {
    fn new(source: &SyscallRule, default: u32) -> Result<Self, CompileError> {
        let answer = answer(source.action, source.errno_ret);
        let effect = if answer == default {
            None
        } else if source.args.is_empty() {
            Some(Effect::Always)
        } else {
            Some(Effect::When(alternatives(source)?))
        };
        let syscalls = Syscall::find_all(source.names.iter().map(String::as_str)).collect();
        Ok(Self { syscalls, answer, effect })
    }
}

fn alternatives(rule: &SyscallRule) -> Result<Vec<Vec<Condition>>, CompileError> {
    let mut seen = [0_usize; 6];
    let conditions = rule
        .args
        .iter()
        .map(|arg| {
            let count = seen.get_mut(arg.index as usize).ok_or_else(|| CompileError::Argument {
                syscall: rule.names.first().cloned().unwrap_or_default(),
                index: arg.index,
            })?;
            *count += 1;
            Ok(condition(arg))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if seen.iter().any(|n| *n > 1) {
        return Ok(conditions.into_iter().map(|c| vec![c]).collect());
    }
    Ok(vec![conditions])
}

fn condition(arg: &Arg) -> Condition {
    let test = match arg.op {
        SeccompOperator::Eq => Test::Masked { mask: u64::MAX, value: arg.value },
        // Bits outside of the mask do not count on either side, as in libseccomp.
        SeccompOperator::MaskedEq => Test::Masked { mask: arg.value, value: arg.value_two & arg.value },
        SeccompOperator::Ne => Test::Ne(arg.value),
        SeccompOperator::Lt => Test::Lt(arg.value),
        SeccompOperator::Le => Test::Le(arg.value),
        SeccompOperator::Ge => Test::Ge(arg.value),
        SeccompOperator::Gt => Test::Gt(arg.value),
    };
    Condition { argument: arg.index, test }
}

/// Gathers the rules by number for one architecture.
fn verdicts(arch: Arch, rules: &[Rule], default: u32) -> Result<Vec<Verdict>, CompileError> {
    // Sorted by number, and for one number in the order of the rules.
    let mut found: Vec<(u32, usize, Syscall)> = Vec::new();
    for (index, rule) in rules.iter().enumerate().filter(|(_, r)| r.effect.is_some()) {
        found.extend(rule.syscalls.iter().filter_map(|s| Some((s.number(arch)?, index, *s))));
    }
    found.sort_unstable_by_key(|(number, index, _)| (*number, *index));
    let mut out: Vec<Verdict> = Vec::with_capacity(found.len());
    for same in found.chunk_by(|a, b| a.0 == b.0) {
        let mut verdict = Verdict { number: same[0].0, cases: Vec::new(), otherwise: default };
        let mut always = None;
        for (_, index, _) in same {
            let rule = &rules[*index];
            match &rule.effect {
                None => {}
                // The first of several wins, as with libseccomp (podman's default profile relies on it).
                Some(Effect::Always) => always = always.or(Some(rule.answer)),
                Some(Effect::When(alternatives)) => {
                    let cases = alternatives.iter().map(|c| Case { conditions: c.clone(), answer: rule.answer });
                    verdict.cases.extend(cases);
                }
            }
        }
        if let Some(answer) = always {
            verdict = Verdict { number: verdict.number, cases: Vec::new(), otherwise: answer };
        }
        out.push(verdict);
    }
    Ok(out)
}
