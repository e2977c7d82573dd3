//! `process.execCPUAffinity`: where a further process runs before and after it is in the container's cgroup.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wharf_oci::runtime::Process;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};

/// CPUs before and after; mostly nothing.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

impl Affinity {
    /// Reads both lists.
    pub(crate) fn plan(process: &Process) -> Result<Self, Failure> {
        let Some(asked) = &process.exec_cpu_affinity else { return Ok(Self::default()) };
        let read = |text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => {
                let wrong = || refuse(Stage::Config, format!("execCPUAffinity {text:?} is no list of CPUs"));
                cpus(text).map(Some).ok_or_else(wrong)
            }
        };
        Ok(Self { initial: read(&asked.initial)?, last: read(&asked.last)? })
    }

    /// In the caller, before the clone: the child is born on the initial CPUs. Returns what the caller's were.
    pub(crate) fn enter_initial(&self) -> Result<Option<CpuSet>, Failure> {
        let Some(initial) = &self.initial else { return Ok(None) };
        let failed = || "set initial CPU affinity";
        let before = sched_getaffinity(None).or_fail(Stage::Process, failed)?;
        sched_setaffinity(None, initial).or_fail(Stage::Process, failed)?;
        Ok(Some(before))
    }

    /// In the caller, after the clone.
    pub(crate) fn leave_initial(before: Option<CpuSet>) {
        // Where we were a moment ago we may be again, unless the CPUs went away; then anywhere is right.
        if let Some(before) = before {
            let _ = sched_setaffinity(None, &before);
        }
    }

    /// In the child, once it is in the cgroup: the final CPUs, or all that the cgroup has.
    pub(crate) fn enter_final(&self) -> Result<(), Failure> {
        match (&self.last, &self.initial) {
            (Some(last), _) => sched_setaffinity(None, last).or_fail(Stage::Process, || "set final CPU affinity"),
            (None, None) => Ok(()),
            (None, Some(_)) => {
                let mut all = CpuSet::new();
                (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
                sched_setaffinity(None, &all).or_fail(Stage::Process, || "reset CPU affinity")
            }
        }
    }
}

/// Reads a list such as `0-2,5`.
fn cpus(text: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CpuSet::MAX_CPU {
            return None;
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_sets_and_nonsense_nothing() {
        let set = cpus("0-2,5").expect("list");
        assert_eq!((0..8).filter(|cpu| set.is_set(*cpu)).collect::<Vec<_>>(), [0, 1, 2, 5]);
        for text in ["", "x", "3-1", "0-99999", "1,,2"] {
            assert!(cpus(text).is_none(), "{text}");
        }
    }
}
