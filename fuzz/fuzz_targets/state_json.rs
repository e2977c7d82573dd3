//! Bytes from outside: never a panic, a hang or an effect elsewhere. The runtime's `state.json`, as the command reads it, and what it
//! then says of such a container.
#![no_main]
#![allow(dead_code)]

#[path = "../../bins/wharf-runtime/src/error.rs"]
mod error;
#[path = "../../bins/wharf-runtime/src/store.rs"]
mod store;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ROOT: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("folder");
    std::fs::create_dir(root.path().join("fuzz")).expect("folder");
    root
});

fuzz_target!(|bytes: &[u8]| {
    let root = ROOT.path();
    std::fs::write(root.join("fuzz/state.json"), bytes).expect("written");
    if let Ok((folder, record)) = store::open(root, "fuzz") {
        // A record may name any process and any group: looking must do nothing to them.
        let _ = folder.status(&record);
        let state = record.state(wharf_oci::runtime::Status::Stopped);
        serde_json::to_vec(&state).expect("a state prints");
        folder.save(&record).expect("saved");
        store::open(root, "fuzz").expect("what was written is read");
    }
});
