//! Named kill points: where a test may have this process killed, to prove that nothing is lost or left behind.
//!
//! `point("create.after-commit")` costs nothing in a shipped build. With the feature `inject`, the process sends
//! itself SIGKILL when the environment variable `WHARF_KILL_AT` holds the point's name (optionally `name:n`, the
//! n-th time it is reached, counting from 1). Names are `verb.step`, listed in [`POINTS`], which tests iterate.

/// Every kill point of the engine. A call of [`point`] with a name that is not here panics under `inject`.
pub const POINTS: &[&str] = &[
    "shim.create",
    "shim.created",
    "shim.start",
    "shim.started",
    "shim.reaped",
    "shim.drained",
    "shim.recorded",
    "shim.reported",
    "unpack.begin",
    "unpack.after-extract",
    "unpack.after-snapshot",
    "blob.before-rename",
    "blob.after-rename",
    "import.after-blob",
    "import.after-manifest",
    "load.after-blobs",
    "pull.resolved",
    "pull.described",
    "pull.during-blob",
    "pull.verified",
    "pull.unpacked",
    "pull.after-blob",
    "pull.before-register",
    "pull.registered",
    "image.before-commit",
    "image.after-commit",
    "capture.before-pause",
    "capture.after-pause",
    "commit.after-extract",
    "commit.after-blob",
    "commit.after-manifest",
    "layers.synced",
    "layers.after-commit",
    "tag.after-commit",
    "push.before-blob",
    "push.after-blob",
    "push.before-manifest",
    "push.after-manifest",
    "prune.next",
    "rmi.before-commit",
    "rmi.after-commit",
    "rmi.after-blobs",
    "rmi.after-layers",
    "connect.after-commit",
    "connect.after-file",
    "connect.after-hold",
    "connect.after-join",
    "connect.begin",
    "connect.done",
    "disconnect.after-commit",
    "disconnect.after-leave",
    "disconnect.begin",
    "disconnect.done",
    "network.after-commit",
    "network.after-link",
    "network.after-removal",
    "network.before-removal",
    "network.begin",
    "create.after-commit",
    "create.after-folder",
    "create.after-snapshot",
    "create.after-volume",
    "create.after-volumes",
    "create.before-commit",
    "create.begin",
    "create.done",
    "exec.after-create",
    "exec.after-end",
    "exec.after-exec",
    "exec.after-start",
    "exit.after-release",
    "exit.published",
    "exit.seen",
    "kill.after-signal",
    "pause.after-freeze",
    "remove.after-commit",
    "remove.after-folder",
    "remove.after-snapshot",
    "remove.after-task",
    "remove.after-volumes",
    "remove.before-commit",
    "remove.volume-aside",
    "remove.begin",
    "remove.done",
    "rename.after-commit",
    "restart.after-stop",
    "start.after-attach",
    "start.after-create",
    "start.after-files",
    "start.after-folder",
    "start.after-spawn",
    "start.after-start",
    "start.before-spawn",
    "start.begin",
    "start.done",
    "stop.after-signal",
    "unpause.after-thaw",
    "update.after-commit",
    "update.after-limits",
    "volume.before-commit",
    "volume.after-commit",
    "volume.rename-aside",
    "volume.rename-committed",
];

/// Marks a step between two effects. See the crate's documentation.
#[inline(always)]
pub fn point(name: &'static str) {
    #[cfg(feature = "inject")]
    inject::reach(name);
    #[cfg(not(feature = "inject"))]
    let _ = name;
}

#[cfg(feature = "inject")]
mod inject {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static AIM: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static SEEN: AtomicU32 = AtomicU32::new(0);

    pub(super) fn reach(name: &'static str) {
        assert!(super::POINTS.contains(&name), "kill point {name} is not listed in POINTS");
        let aim = AIM.get_or_init(|| {
            let value = std::env::var("WHARF_KILL_AT").ok()?;
            Some(match value.rsplit_once(':') {
                Some((name, n)) => (name.to_owned(), n.parse().unwrap_or(1)),
                None => (value, 1),
            })
        });
        if let Some((wanted, nth)) = aim
            && wanted == name
            && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
