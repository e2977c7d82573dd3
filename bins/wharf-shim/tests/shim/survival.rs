//! kill -9 of dockerd in the middle: the container never pauses, and the next dockerd finds everything.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use wharf_task::{Adopted, Shims};
use wharf_types::ContainerId;

use crate::bench::{Bench, LIMIT, within};

/// In the environment of a test that plays dockerd: where it is to run its container.
const STAGE: &str = "WHARF_SHIM_TEST_STAGE";

const SCRIPT: &str = "seq 1 3000000; exit 11";

#[tokio::test]
async fn kill_9_of_dockerd_during_a_flood_loses_nothing() {
    if let Some(folder) = std::env::var_os(STAGE) {
        return play_dockerd(Path::new(&folder)).await;
    }
    let folder = tempfile::Builder::new().prefix("wharf-shim-").tempdir().expect("folder");
    let mut dockerd = Command::new(std::env::current_exe().expect("self"))
        .args(["--exact", "survival::kill_9_of_dockerd_during_a_flood_loses_nothing", "--nocapture"])
        .env(STAGE, folder.path())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("spawned");
    let id = within(wait_for(|| std::fs::read_to_string(folder.path().join("id")).ok())).await;
    let id = ContainerId::parse(&id).expect("id");
    let log_dir = folder.path().join(id.short());
    let log = log_dir.join(format!("{id}-json.log"));
    let len = || std::fs::metadata(&log).map_or(0, |m| m.len());
    within(wait_for(|| (len() > 1_000_000).then_some(()))).await;
    dockerd.kill().expect("killed");
    dockerd.wait().expect("reaped");
    let shims = Shims::new(env!("CARGO_BIN_EXE_wharf-shim").into(), folder.path().join("run"));
    assert_eq!(shims.list().expect("list"), std::slice::from_ref(&id));
    let Adopted::Alive { shim, started: Some(_), .. } = within(shims.adopt(&id)).await.expect("adopted") else {
        panic!("the shim lives on")
    };
    assert_eq!(within(shim.wait(None)).await.expect("waited").status, 11);
    let config = wharf_logs::Config::parse("json-file", [("max-size", "-1")]).expect("valid");
    let task = crate::bench::Task { id, shim, log: config, log_dir };
    let expected: Vec<u8> = (1..=3_000_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert!(task.log() == expected);
    task.shim.delete(None).await.expect("deleted");
    task.shim.shutdown().await.expect("shut down");
    within(task.shim.gone()).await;
}

/// What the child does until it is killed.
async fn play_dockerd(folder: &Path) {
    let bench = Bench::inside(folder);
    let task = bench.run(SCRIPT, &[("max-size", "-1")]).await;
    let temporary = folder.join("id.tmp");
    std::fs::write(&temporary, task.id.as_str()).expect("written");
    std::fs::rename(&temporary, folder.join("id")).expect("named");
    tokio::time::sleep(LIMIT).await;
}

async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
