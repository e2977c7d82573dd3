//! Output and input: exact bytes, whoever is slow.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_task::{CreateRequest, Stdin};
use wharf_types::Signal;

use crate::bench::{ALL, Bench, WITH_STDIN, read_frames, within};

#[tokio::test]
async fn stdin_reaches_the_process_and_ends_with_the_client_that_ends_it() {
    let bench = Bench::new();
    let request = CreateRequest { stdin: Stdin::Once, ..CreateRequest::default() };
    let task = bench.create("cat", &[], request).await;
    let mut attached = task.attach(WITH_STDIN).await;
    task.shim.start(None).await.expect("started");
    attached.stream.write_all(b"through\0the\xffshim\n").await.expect("written");
    attached.stream.shutdown().await.expect("half-closed");
    assert_eq!(read_frames(&mut attached).await, b"through\0the\xffshim\n");
    assert_eq!(task.wait().await.status, 0);
    bench.finish(task).await;
}

#[tokio::test]
async fn a_million_lines_of_stdin_come_back_though_everybody_is_slow() {
    let bench = Bench::new();
    let request = CreateRequest { stdin: Stdin::Once, ..CreateRequest::default() };
    let task = bench.create("cat", &[("max-size", "-1")], request).await;
    let attached = task.attach(WITH_STDIN).await;
    task.shim.start(None).await.expect("started");
    let input: Vec<u8> = (0..1_000_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let (mut reader, mut writer) = attached.stream.into_split();
    let sent = input.clone();
    let feeder = tokio::spawn(async move {
        writer.write_all(&sent).await.expect("written");
        writer.shutdown().await.expect("half-closed");
    });
    let mut raw = Vec::new();
    within(reader.read_to_end(&mut raw)).await.expect("read");
    feeder.await.expect("fed");
    assert!(crate::bench::unframe(&raw) == input);
    assert_eq!(task.wait().await.status, 0);
    assert!(task.log() == input);
    bench.finish(task).await;
}

#[tokio::test]
async fn a_prompt_without_newline_arrives_at_once_and_is_logged_at_the_end() {
    let bench = Bench::new();
    let request = CreateRequest { stdin: Stdin::Once, ..CreateRequest::default() };
    let task = bench.create("printf 'name? '; cat", &[], request).await;
    let mut attached = task.attach(WITH_STDIN).await;
    task.shim.start(None).await.expect("started");
    let mut prompt = [0; 14];
    within(attached.stream.read_exact(&mut prompt)).await.expect("read");
    assert_eq!(&prompt[8..], b"name? ");
    assert!(task.log().is_empty());
    // A second client that asks for what the log does not hold yet gets the prompt, too.
    let whole = wharf_task::AttachRequest { whole_line: true, ..ALL };
    let mut second = task.attach(whole).await;
    within(second.stream.read_exact(&mut prompt)).await.expect("read");
    assert_eq!(&prompt[8..], b"name? ");
    // A third that does not ask gets only what comes next, as with Docker.
    let mut third = task.attach(ALL).await;
    attached.stream.write_all(b"me\n").await.expect("written");
    attached.stream.shutdown().await.expect("half-closed");
    assert_eq!(task.wait().await.status, 0);
    assert_eq!(read_frames(&mut third).await, b"me\n");
    assert_eq!(read_frames(&mut second).await, b"me\n");
    assert_eq!(task.log(), b"name? me\n");
    bench.finish(task).await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_carries_plain_bytes() {
    let bench = Bench::new();
    let request = CreateRequest { terminal: true, stdin: Stdin::Kept, ..CreateRequest::default() };
    let task = bench.create("stty size; read line; echo got $line; test -t 0", &[], request).await;
    task.shim.resize(None, 123, 45).await.expect("resized");
    let mut attached = task.attach(WITH_STDIN).await;
    assert!(attached.terminal);
    task.shim.start(None).await.expect("started");
    let mut out = vec![0; 8];
    within(attached.stream.read_exact(&mut out)).await.expect("read");
    assert_eq!(out, b"45 123\r\n");
    attached.stream.write_all(b"hello\n").await.expect("written");
    out.clear();
    within(attached.stream.read_to_end(&mut out)).await.expect("read");
    assert_eq!(String::from_utf8_lossy(&out), "hello\r\ngot hello\r\n");
    assert_eq!(task.wait().await.status, 0);
    bench.finish(task).await;
}

#[tokio::test]
async fn an_exec_reads_stdin_to_its_end() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let exec = task.prepare_exec("cat; echo done >&2", Stdin::Once).await;
    let mut attached = within(task.shim.attach(Some(&exec), WITH_STDIN)).await.expect("attached");
    // Before the start: it waits in the pipe.
    attached.stream.write_all(b"early ").await.expect("written");
    task.shim.start(Some(&exec)).await.expect("started");
    attached.stream.write_all(b"late\n").await.expect("written");
    attached.stream.shutdown().await.expect("half-closed");
    assert_eq!(read_frames(&mut attached).await, b"early late\ndone\n");
    assert_eq!(within(task.shim.wait(Some(&exec))).await.expect("waited").status, 0);
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

/// Output of every kind: text, bad UTF-8, NUL, long lines, no newline at the end.
const NOISE: &str = "seq 1 100000; dd if=/bin/busybox bs=1000000 count=2 2>/dev/null; yes long | head -c 100000 | tr -d '\\n'; printf end";

fn noise() -> Vec<u8> {
    let mut bytes: Vec<u8> = (1..=100_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    bytes.extend_from_slice(&program[..program.len().min(2_000_000)]);
    bytes.extend("long\n".bytes().cycle().take(100_000).filter(|b| *b != b'\n'));
    bytes.extend_from_slice(b"end");
    bytes
}

#[tokio::test]
async fn the_log_and_fast_and_slow_clients_get_the_same_exact_bytes() {
    let bench = Bench::new();
    for log in [
        &[("max-size", "-1")][..],
        &[("driver", "local"), ("max-size", "-1"), ("compress", "false")],
        // Far smaller than the output: rotation would overtake the slow client a hundred times.
        &[("driver", "local"), ("max-size", "50k"), ("max-file", "2"), ("compress", "false")],
        &[("driver", "local"), ("max-size", "500k"), ("max-file", "2"), ("compress", "true")],
        &[("driver", "none")],
    ] {
        let task = bench.create(NOISE, log, CreateRequest::default()).await;
        let mut fast = task.attach(ALL).await;
        let mut slow = task.attach(ALL).await;
        task.shim.start(None).await.expect("started");
        let slow = tokio::spawn(async move {
            let (mut raw, mut chunk) = (Vec::new(), vec![0; 3000]);
            loop {
                let n = within(slow.stream.read(&mut chunk)).await.expect("read");
                if n == 0 {
                    return crate::bench::unframe(&raw);
                }
                raw.extend_from_slice(&chunk[..n]);
                tokio::task::yield_now().await;
            }
        });
        let expected = noise();
        assert!(read_frames(&mut fast).await == expected, "fast, {log:?}");
        assert!(slow.await.expect("read") == expected, "slow, {log:?}");
        assert_eq!(task.wait().await.status, 0);
        if log.iter().any(|(_, v)| *v == "-1") {
            assert!(task.log() == expected, "{log:?}");
        }
        bench.finish(task).await;
    }
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_nothing_that_the_spool_can_keep() {
    let bench = Bench::new();
    let task = bench.create(NOISE, &[("max-size", "-1")], CreateRequest::default()).await;
    let mut stuck = task.attach(ALL).await;
    task.shim.start(None).await.expect("started");
    assert_eq!(task.wait().await.status, 0);
    assert!(task.log() == noise());
    // --rm waits for attached readers: the shim stays until this one has everything.
    task.shim.delete(None).await.expect("deleted");
    task.shim.shutdown().await.expect("shut down");
    assert!(read_frames(&mut stuck).await == noise());
    drop(stuck);
    within(task.shim.gone()).await;
    bench.shims.remove(&task.id).expect("removed");
}

#[tokio::test]
async fn without_a_spool_a_client_that_does_not_read_makes_the_container_wait() {
    let bench = Bench::new();
    let script = format!("{NOISE}; echo >/tmp/done");
    let task = bench.create(&script, &[("driver", "none")], CreateRequest::default()).await;
    let mut stuck = task.attach(ALL).await;
    task.shim.start(None).await.expect("started");
    // Another call is answered meanwhile: waiting is the container's, not the shim's.
    for _ in 0..50 {
        assert_eq!(task.shim.state(None).await.expect("state").status, wharf_task::Status::Running);
    }
    let expected = noise();
    assert!(read_frames(&mut stuck).await == expected);
    assert_eq!(task.wait().await.status, 0);
    bench.finish(task).await;
}

#[tokio::test]
async fn output_of_an_exec_without_a_reader_is_discarded() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    let exec = task.prepare_exec("yes | head -c 3000000; exit 4", Stdin::Null).await;
    task.shim.start(Some(&exec)).await.expect("started");
    assert_eq!(within(task.shim.wait(Some(&exec))).await.expect("waited").status, 4);
    assert!(task.log().is_empty());
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

#[tokio::test]
async fn an_exec_whose_children_hold_its_pipes_ends_all_the_same() {
    let bench = Bench::new();
    let task = bench.run("sleep 1000", &[]).await;
    assert_eq!(task.exec("sleep 500 & echo left behind").await, (b"left behind\n".to_vec(), 0));
    // Nor does its deletion cut off at once what its children write.
    let exec = task.prepare_exec("(sleep 0.05; echo late) & true", Stdin::Null).await;
    let mut attached = within(task.shim.attach(Some(&exec), ALL)).await.expect("attached");
    task.shim.start(Some(&exec)).await.expect("started");
    assert_eq!(within(task.shim.wait(Some(&exec))).await.expect("waited").status, 0);
    task.shim.delete(Some(&exec)).await.expect("deleted");
    assert!(task.shim.state(Some(&exec)).await.is_err());
    assert_eq!(read_frames(&mut attached).await, b"late\n");
    task.shim.kill(None, Signal::KILL, true).await.expect("killed");
    task.wait().await;
    bench.finish(task).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_does_no_harm() {
    let bench = Bench::new();
    let task = bench.create(NOISE, &[("driver", "none")], CreateRequest::default()).await;
    let mut first = task.attach(ALL).await;
    task.shim.start(None).await.expect("started");
    within(first.stream.read_exact(&mut [0; 1000])).await.expect("read");
    drop(first);
    assert_eq!(task.wait().await.status, 0);
    bench.finish(task).await;
}
