//! The system call filter: the `linux.seccomp` object.

use serde::{Deserialize, Serialize};

use super::nullable;

/// A system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxSeccomp {
    /// What happens to calls that no rule names.
    pub default_action: SeccompAction,
    /// The error number of a default action ERRNO or TRACE; absent is EPERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures the filter knows, `SCMP_ARCH_X86_64`, …; the native one is always among them.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Socket that gets the descriptor of a NOTIFY filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// Opaque data for the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Rules.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SyscallRule>,
}

/// What a filter does with a call (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeccompAction {
    /// Kills the thread (the old name of `KillThread`).
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    /// Kills the whole process.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// Kills the thread.
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// Sends SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// Gives an error number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// Tells a tracer.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// Lets the call through.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// Lets the call through and logs it.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// Asks a supervisor in user space.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// One rule: these calls, under these conditions, get this action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyscallRule {
    /// System calls by name; names the runtime does not know are ignored.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// What happens.
    pub action: SeccompAction,
    /// The error number of ERRNO or TRACE; absent is EPERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions, all of which must hold.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// Compared with.
    #[serde(default)]
    pub value: u64,
    /// Second operand: for `MaskedEq` the value, while `value` is the mask.
    #[serde(default)]
    pub value_two: u64,
    /// How it is compared.
    pub op: SeccompOperator,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeccompOperator {
    /// ≠
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    /// <
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    /// ≤
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    /// =
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    /// ≥
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    /// >
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// (argument & `value`) = `value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}
