//! What must not happen: a shim that dies, hangs or grows because of a client or of its container.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wharf_task::{CreateRequest, Stdin, TaskError};
use wharf_types::{Signal, Stage};

use crate::bench::{ALL, Bench, proc_field, within};

#[tokio::test]
async fn bytes_that_are_no_calls_end_their_connection_and_nothing_else() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let socket = bench.shims.folder(&task.id).join("shim.sock");
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        &[0, 0x50, 0, 0, 0, 0, 0, 1, 1, 0],
        &[0, 0, 0, 4, 0, 0, 0, 1, 1, 0, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 0, 0, 1, 7, 0],
        &[],
    ] {
        let mut stream = UnixStream::connect(&socket).await.expect("connected");
        stream.write_all(bytes).await.expect("written");
        stream.shutdown().await.expect("half-closed");
        let mut answer = Vec::new();
        // Reset or end of file, perhaps behind an error status.
        let _ = within(stream.read_to_end(&mut answer)).await;
        assert!(answer.len() < 300);
    }
    assert!(!task.shim.pids().await.expect("it still answers").is_empty());
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

#[tokio::test]
async fn cve_2022_23471_calls_that_are_never_finished_leave_no_memory_behind() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let socket = bench.shims.folder(&task.id).join("shim.sock");
    let status = format!("/proc/{}/status", task.shim.pid());
    let before = proc_field(status.as_ref(), "VmRSS:");
    for _ in 0..300 {
        let mut stream = UnixStream::connect(&socket).await.expect("connected");
        // A header that announces 4 MiB, and no more.
        stream.write_all(&[0, 0x40, 0, 0, 0, 0, 0, 1, 1, 0]).await.expect("written");
        stream.write_all(&[0; 100_000]).await.expect("written");
        stream.shutdown().await.expect("half-closed");
        let mut nothing = Vec::new();
        let _ = within(stream.read_to_end(&mut nothing)).await;
        assert!(nothing.is_empty());
    }
    task.shim.state(None).await.expect("it still answers");
    let after = proc_field(status.as_ref(), "VmRSS:");
    assert!(after < before + 4000, "{before} kB, then {after} kB");
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_told_by_its_stage() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let exec = wharf_types::ExecId::from_bytes([7; 32]);
    let process = br#"{"args":["/nope"],"cwd":"/","user":{"uid":0,"gid":0}}"#.to_vec();
    let request = wharf_task::ExecRequest { exec: exec.clone(), process, terminal: false, stdin: Stdin::Null };
    task.shim.exec(request).await.expect("prepared");
    let error = task.shim.start(Some(&exec)).await.expect_err("nothing to start");
    assert_eq!(error.failure().map(|f| f.stage), Some(Stage::CommandNotFound), "{error}");
    assert!(matches!(task.shim.state(Some(&exec)).await, Err(TaskError::Remote { .. })));
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

#[tokio::test]
async fn two_hundred_execs_at_once_all_come_back() {
    let bench = Bench::new();
    let task = std::sync::Arc::new(bench.run("sleep 1000", &[]).await);
    let execs: Vec<_> = (0..200u32)
        .map(|n| {
            let task = std::sync::Arc::clone(&task);
            tokio::spawn(async move {
                let (out, status) = task.exec(&format!("echo {n}; exit {}", n % 50)).await;
                assert_eq!((out, status), (format!("{n}\n").into_bytes(), n % 50));
            })
        })
        .collect();
    for exec in execs {
        exec.await.expect("right");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", task.shim.pid())).expect("there").count();
    assert!(open < 30, "{open} descriptors are left");
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    let task = std::sync::Arc::into_inner(task).expect("all execs are done");
    bench.finish(task).await;
}

#[tokio::test]
async fn a_shim_that_is_stopped_holds_up_only_its_own_container() {
    let bench = Bench::new();
    let (stopped, other) = (bench.run("sleep 1000", &[]).await, bench.run("sleep 1000", &[]).await);
    let pid = rustix::process::Pid::from_raw(stopped.shim.pid().cast_signed()).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
    let shim = stopped.shim.clone();
    let call = tokio::spawn(async move { shim.state(None).await });
    for _ in 0..100 {
        other.shim.state(None).await.expect("answers");
    }
    assert!(!call.is_finished());
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("continued");
    within(call).await.expect("joined").expect("answers now");
    for task in [stopped, other] {
        task.shim.kill(None, Signal::KILL, true).await.expect("killed");
        task.wait().await;
        bench.finish(task).await;
    }
}

#[tokio::test]
async fn an_out_of_memory_kill_is_told() {
    let bench = Bench::new();
    // The memory of a variable that doubles.
    let script = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
    let limits = serde_json::json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    let task = bench.create_limited(script, limits, CreateRequest::default()).await;
    task.shim.start(None).await.expect("started");
    let exit = task.wait().await;
    assert_eq!((exit.status, exit.oom), (137, true));
    let records = wharf_task::read_records(&bench.shims.folder(&task.id)).expect("records");
    assert!(records.iter().any(|r| r.kind == wharf_task::RecordKind::Oom));
    bench.finish(task).await;
}

#[tokio::test]
async fn a_paused_container_stands_still_and_can_be_killed() {
    let bench = Bench::new();
    let task = bench.run("while echo x; do :; done", &[("driver", "none")]).await;
    task.shim.pause().await.expect("paused");
    assert_eq!(task.shim.state(None).await.expect("state").status, wharf_task::Status::Paused);
    task.shim.resume().await.expect("resumed");
    assert_eq!(task.shim.state(None).await.expect("state").status, wharf_task::Status::Running);
    assert!(task.shim.stats().await.expect("figures").cpu.total > 0);
    task.shim.update(br#"{"pids":{"limit":50}}"#.to_vec()).await.expect("updated");
    task.shim.pause().await.expect("paused");
    task.shim.kill(None, Signal::KILL, false).await.expect("killed");
    assert_eq!(task.wait().await.status, 137);
    bench.finish(task).await;
}

#[tokio::test]
async fn a_container_that_was_never_started_goes_without_a_trace() {
    let bench = Bench::new();
    let task = bench.create("echo never", &[], CreateRequest::default()).await;
    let mut attached = task.attach(ALL).await;
    task.shim.delete(None).await.expect("deleted");
    let mut out = Vec::new();
    within(attached.stream.read_to_end(&mut out)).await.expect("ended");
    assert!(out.is_empty());
    task.shim.shutdown().await.expect("shut down");
    within(task.shim.gone()).await;
    bench.shims.remove(&task.id).expect("removed");
}
