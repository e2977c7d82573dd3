//! Stopping and continuing a whole group.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::pread;

use crate::CgroupError;
use crate::file::{get, parse_table, write_value};

/// How long freezing may take: runc gives it about as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// v1's freezer can hang in FREEZING beside forks and ptrace; thawing in between gets it going, as in runc.
const ROUND: Duration = Duration::from_millis(50);

pub fn freeze_v1(path: &Path) -> Result<(), CgroupError> {
    let file = path.join("freezer.state");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        write_value(&file, "FROZEN")?;
        let round = Instant::now() + ROUND;
        let mut pause = Duration::from_micros(50);
        while Instant::now() < round {
            let state = get(&file).map_err(|e| CgroupError::Read { path: file.clone(), source: e.into() })?;
            if state.trim() == "FROZEN" {
                return Ok(());
            }
            // v1 tells nobody when the last process stands still.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        write_value(&file, "THAWED")?;
    }
    Err(CgroupError::Freeze { path: path.into(), state: "frozen" })
}

pub fn thaw_v1(path: &Path) -> Result<(), CgroupError> {
    write_value(&path.join("freezer.state"), "THAWED")
}

pub fn freeze_v2(path: &Path) -> Result<(), CgroupError> {
    write_value(&path.join("cgroup.freeze"), "1")?;
    match wait_v2(path, 1) {
        Ok(true) => Ok(()),
        Ok(false) => {
            thaw_v2(path)?;
            Err(CgroupError::Freeze { path: path.into(), state: "frozen" })
        }
        Err(e) => Err(e),
    }
}

pub fn thaw_v2(path: &Path) -> Result<(), CgroupError> {
    write_value(&path.join("cgroup.freeze"), "0")
}

/// Waits until `cgroup.events` says so; the kernel announces each change as exceptional condition.
fn wait_v2(path: &Path, frozen: u64) -> Result<bool, CgroupError> {
    let file = path.join("cgroup.events");
    let failed = |e: rustix::io::Errno| CgroupError::Read { path: file.clone(), source: e.into() };
    let events = openat(CWD, &file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 256];
    loop {
        let n = pread(&events, &mut buffer, 0).map_err(failed)?;
        let table = parse_table(&String::from_utf8_lossy(&buffer[..n]));
        if table.get("frozen") == Some(&frozen) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
}
