//! Scheduling, execution domain and memory policy, from the configuration's words to the kernel's numbers.

use rustix::process::Resource;
use wharf_oci::runtime::{Linux, Process};
use wharf_sys::schedule;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};

/// What is to be set; mostly nothing.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    cpu: Option<schedule::Attributes>,
    io: Option<(u16, u16)>,
    personality: Option<u32>,
    memory: Option<(u32, Vec<u64>)>,
}

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const POLICY_FLAGS: [(&str, u32); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
const IO_CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
const DOMAINS: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];
const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
const MEMORY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];
/// Highest memory node taken; the kernel's own limit is 1024.
const MAX_NODE: usize = 1023;

fn word(table: &[(&str, u32)], text: &str, what: &str) -> Result<u32, Failure> {
    let found = table.iter().find(|(name, _)| *name == text).map(|(_, n)| *n);
    found.ok_or_else(|| refuse(Stage::Config, format!("{what} {text:?} is not known")))
}

impl Scheduling {
    pub(crate) fn plan(process: &Process, linux: &Linux) -> Result<Self, Failure> {
        let mut this = Self::default();
        if let Some(s) = &process.scheduler {
            let mut flags = 0;
            for flag in &s.flags {
                flags |= u64::from(word(&POLICY_FLAGS, flag, "scheduler flag")?);
            }
            let mut cpu = schedule::Attributes::default();
            cpu.policy = word(&POLICIES, &s.policy, "scheduler policy")?;
            cpu.flags = flags;
            cpu.nice = s.nice.unwrap_or(0);
            cpu.priority = u32::try_from(s.priority.unwrap_or(0))
                .map_err(|_| refuse(Stage::Config, "scheduler priority is negative"))?;
            cpu.runtime = s.runtime.unwrap_or(0);
            cpu.deadline = s.deadline.unwrap_or(0);
            cpu.period = s.period.unwrap_or(0);
            this.cpu = Some(cpu);
        }
        if let Some(io) = &process.io_priority {
            let class = word(&IO_CLASSES, &io.class, "ioPriority class")?;
            let priority = u16::try_from(io.priority).ok().filter(|p| *p <= 7);
            let priority = priority.ok_or_else(|| refuse(Stage::Config, "ioPriority priority is not 0 to 7"))?;
            this.io = Some((class as u16, priority));
        }
        if let Some(personality) = &linux.personality {
            this.personality = Some(word(&DOMAINS, &personality.domain, "personality domain")?);
        }
        if let Some(policy) = &linux.memory_policy {
            let mut mode = word(&MEMORY_MODES, &policy.mode, "memory policy mode")?;
            for flag in &policy.flags {
                mode |= word(&MEMORY_FLAGS, flag, "memory policy flag")?;
            }
            let nodes = nodes(&policy.nodes)
                .ok_or_else(|| refuse(Stage::Config, format!("memory policy nodes {:?} is no list", policy.nodes)))?;
            this.memory = Some((mode, nodes));
        }
        Ok(this)
    }

    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if let Some(cpu) = &self.cpu {
            schedule::set(cpu).or_fail(Stage::Process, || "error setting scheduler")?;
        }
        if let Some((class, priority)) = self.io {
            schedule::set_io_priority(class, priority).or_fail(Stage::Process, || "error setting ioPriority")?;
        }
        if let Some(domain) = self.personality {
            schedule::set_personality(domain).or_fail(Stage::Process, || "error setting personality")?;
        }
        if let Some((mode, nodes)) = &self.memory {
            schedule::set_memory_policy(*mode, nodes).or_fail(Stage::Process, || "error setting memory policy")?;
        }
        Ok(())
    }
}

/// The memory policies by name, for `features`.
pub fn memory_modes() -> Vec<&'static str> {
    MEMORY_MODES.iter().map(|(name, _)| *name).collect()
}

/// Their flags.
pub fn memory_flags() -> Vec<&'static str> {
    MEMORY_FLAGS.iter().map(|(name, _)| *name).collect()
}

/// Reads a list such as `0-2,5` into bits.
fn nodes(text: &str) -> Option<Vec<u64>> {
    let mut bits = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_NODE {
            return None;
        }
        bits.resize(bits.len().max(last / 64 + 1), 0u64);
        for node in first..=last {
            bits[node / 64] |= 1 << (node % 64);
        }
    }
    Some(bits)
}

/// A limit's name (`RLIMIT_NOFILE`) as the kernel's number.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(match name.strip_prefix("RLIMIT_")? {
        "CPU" => Resource::Cpu,
        "FSIZE" => Resource::Fsize,
        "DATA" => Resource::Data,
        "STACK" => Resource::Stack,
        "CORE" => Resource::Core,
        "RSS" => Resource::Rss,
        "NPROC" => Resource::Nproc,
        "NOFILE" => Resource::Nofile,
        "MEMLOCK" => Resource::Memlock,
        "AS" => Resource::As,
        "LOCKS" => Resource::Locks,
        "SIGPENDING" => Resource::Sigpending,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_lists_become_bits_and_nonsense_nothing() {
        assert_eq!(nodes("0-2,5"), Some(vec![0b100111]));
        assert_eq!(nodes("64"), Some(vec![0, 1]));
        assert_eq!(nodes(""), Some(vec![]));
        for text in ["x", "3-1", "0-99999999999", "-"] {
            assert_eq!(nodes(text), None, "{text}");
        }
    }

    #[test]
    fn a_limit_is_known_by_its_full_name_only() {
        assert!(resource("RLIMIT_NOFILE").is_some());
        assert!(resource("NOFILE").is_none() && resource("RLIMIT_MOON").is_none());
    }
}
