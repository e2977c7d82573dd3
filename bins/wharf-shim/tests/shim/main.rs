//! Real shims, real containers: what `wharf-task` promises holds.

mod bench;
mod hostile;
#[cfg(feature = "inject")]
mod killed;
mod relays;
mod stdio;
mod survival;

use bench::{ALL, Bench, within};
use wharf_task::{Adopted, CreateRequest, Status};
use wharf_types::Signal;

#[tokio::test]
async fn a_container_runs_and_its_exit_code_and_output_are_there() {
    let bench = Bench::new();
    let task = bench.create("echo out; echo err >&2; exit 7", &[], CreateRequest::default()).await;
    assert_eq!(task.shim.state(None).await.expect("state").status, Status::Created);
    let mut attached = task.attach(ALL).await;
    task.shim.start(None).await.expect("started");
    assert_eq!(task.wait().await.status, 7);
    let mut out = bench::read_frames(&mut attached).await;
    out.sort_unstable();
    let mut expected = b"out\nerr\n".to_vec();
    expected.sort_unstable();
    assert_eq!(out, expected);
    assert_eq!(task.log().len(), 8);
    let state = task.shim.state(None).await.expect("state");
    assert_eq!((state.status, state.exit_status), (Status::Stopped, 7));
    bench.finish(task).await;
}

#[tokio::test]
async fn a_signal_that_kills_is_128_plus_its_number() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    task.shim.kill(None, Signal::KILL, false).await.expect("killed");
    assert_eq!(task.wait().await.status, 137);
    assert!(task.shim.kill(None, Signal::KILL, false).await.is_err());
    bench.finish(task).await;
}

#[tokio::test]
async fn execs_run_with_their_own_output_and_code() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    assert_eq!(task.exec("echo hi; exit 3").await, (b"hi\n".to_vec(), 3));
    assert!(!task.shim.pids().await.expect("pids").is_empty());
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

/// Process ids and command lines of our children that wait for work.
fn spares() -> Vec<u32> {
    let own = std::process::id().to_string();
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let waits = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        parent.as_ref() == Some(&own) && words(*pid).get(1).is_some_and(|word| word == "--spare")
    };
    pids.filter(waits).collect()
}

/// Whether a process has ended, waited for or not.
fn is_dead(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn words(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect()
}

async fn a_spare() -> u32 {
    for _ in 0..500 {
        if let Some(pid) = spares().first() {
            return *pid;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no shim waits for work");
}

#[tokio::test]
async fn the_second_container_takes_a_shim_that_waited_and_ps_shows_whose_it_is() {
    let bench = Bench::new();
    let first = bench.run("exit 0", &[]).await;
    let waiting = a_spare().await;
    let second = bench.run("echo hi; exit 4", &[]).await;
    assert_eq!(second.shim.pid(), waiting);
    assert_eq!(words(waiting)[..3], ["wharf-shim".to_owned(), "--id".to_owned(), second.id.to_string()]);
    assert_eq!(second.wait().await.status, 4);
    assert_eq!(second.log(), b"hi\n");
    // One that is killed while it waits is replaced, and the start does not notice.
    let waiting = rustix::process::Pid::from_raw(a_spare().await.cast_signed()).expect("pid");
    rustix::process::kill_process(waiting, rustix::process::Signal::KILL).expect("killed");
    // Its command line goes before its descriptors: only a zombie holds none.
    while !is_dead(waiting) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let third = bench.run("exit 5", &[]).await;
    assert_eq!(third.wait().await.status, 5);
    for task in [first, second, third] {
        bench.finish(task).await;
    }
}

#[tokio::test]
async fn the_next_dockerd_adopts_what_runs_and_what_ended() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000; exit 5", &[]).await;
    let Adopted::Alive { shim, pid, started, exit } = bench.shims.adopt(&task.id).await.expect("adopted") else {
        panic!("shim is alive")
    };
    assert_eq!((shim.pid(), exit), (task.shim.pid(), None));
    assert!(pid > 0 && started.is_some());
    shim.kill(None, Signal::KILL, true).await.expect("killed");
    let exit = within(shim.wait(None)).await.expect("waited");
    assert_eq!(exit.status, 137);
    let Adopted::Alive { exit: Some(again), .. } = bench.shims.adopt(&task.id).await.expect("adopted") else {
        panic!("shim is alive and its process ended")
    };
    assert_eq!(again, exit);
    bench.finish(task).await;
}

#[tokio::test]
async fn a_killed_shim_is_a_lost_container_unless_the_exit_was_recorded() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let pid = rustix::process::Pid::from_raw(task.shim.pid().cast_signed()).expect("pid");
    let state = task.shim.state(None).await.expect("state");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    within(task.shim.gone()).await;
    assert!(matches!(within(task.shim.wait(None)).await, Err(wharf_task::TaskError::Gone { .. })));
    let Adopted::Lost { records, same_boot } = bench.shims.adopt(&task.id).await.expect("adopted") else {
        panic!("nothing says how it ended")
    };
    assert!(same_boot && records.iter().any(|r| r.pid == state.pid));
    task.clear_away();

    let task = bench.run("exit 9", &[]).await;
    assert_eq!(task.wait().await.status, 9);
    let pid = rustix::process::Pid::from_raw(task.shim.pid().cast_signed()).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    within(task.shim.gone()).await;
    assert_eq!(within(task.shim.wait(None)).await.expect("recorded").status, 9);
    let Adopted::Exited(exit) = bench.shims.adopt(&task.id).await.expect("adopted") else { panic!("recorded") };
    assert_eq!(exit.status, 9);
    bench.shims.remove(&task.id).expect("removed");
}

#[tokio::test]
async fn an_idle_container_costs_little_memory() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let rollup = format!("/proc/{}/smaps_rollup", task.shim.pid());
    let own = bench::proc_field(rollup.as_ref(), "Anonymous:");
    // What is not shared with the shims of other containers. The figure of SPECIFICATION.md is for an optimised build.
    assert!(own < 1000, "{own} kB");
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

#[tokio::test]
async fn cve_2019_5736_what_a_container_can_open_of_its_shim_cannot_be_written() {
    let bench = Bench::new();
    let task = bench.create("true", &[], CreateRequest::default()).await;
    // The first process waits at the gate and is still the shim's program: a container that makes it execute
    // /proc/self/exe could open this.
    let state = task.shim.state(None).await.expect("state");
    let exe = std::fs::File::open(format!("/proc/{}/exe", state.pid)).expect("opened");
    let on_read_only_mount =
        rustix::fs::fstatvfs(&exe).expect("read").f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    let sealed = rustix::fs::fcntl_get_seals(&exe).is_ok_and(|s| s.contains(rustix::fs::SealFlags::WRITE));
    assert!(on_read_only_mount || sealed);
    task.shim.start(None).await.expect("started");
    task.wait().await;
    bench.finish(task).await;
}
