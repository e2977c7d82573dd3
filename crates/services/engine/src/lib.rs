//! The use cases: containers, execs, images, networks, volumes, events and recovery, without HTTP and without netlink.

mod cgroups;
mod changes;
pub mod check;
pub mod config;
pub mod container;
mod copy;
pub mod create;
pub mod creator;
mod disk;
mod engine;
mod error;
pub mod events;
pub mod execs;
pub mod files;
mod identity;
pub mod images;
mod init_layer;
pub mod lifecycle;
pub mod lists;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod networks;
mod processes;
mod recovery;
pub mod registries;
mod rootfs;
pub mod spec;
mod steps;
pub mod streams;
pub mod system;
pub mod takeover;
pub mod volumes;

pub use changes::until;
pub use engine::{Engine, Setup};
pub use error::{EngineError, OpenError, StartError};
pub use steps::{StepBind, StepEnd, StepInput, StepNetwork, StepOutput, StepRequest, Steps};

/// Runs work that blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    // It fails only when the work panicked or the runtime is shutting down.
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Worker)
}

/// Runs work that blocks for a moment (a few file operations) on this very thread: another thread would have to be
/// woken and waited for, which on a busy host costs more than the work. The runtime moves its other tasks away
/// meanwhile, so the runtime must be a multi-threaded one.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// 32 random bytes, the stuff of Docker's ids.
pub(crate) fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // getrandom(2) gives up to 256 bytes whole and fails only before the pool is ready, where it blocks.
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

/// A duration as Go prints it: `1m30s`, `500ms`.
pub(crate) fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        return match nanos {
            n if n < 1000 => format!("{n}ns"),
            n if n < 1_000_000 => format!("{}µs", fraction(n, 1000)),
            n => format!("{}ms", fraction(n, 1_000_000)),
        };
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

/// 64 random hexadecimal digits.
pub(crate) fn random_hex() -> String {
    use std::fmt::Write;
    random_bytes().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
