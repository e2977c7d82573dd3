//! Waiting on a state with a deadline, never for a guessed time.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once. Generous, because CI hosts are busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Calls `probe` until it gives a value.
///
/// # Panics
/// After [`DEADLINE`], naming `what`.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
