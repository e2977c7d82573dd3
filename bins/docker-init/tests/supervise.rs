//! The init as a process: exit codes, signals, orphans.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn init(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docker-init"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn status(arguments: &[&str]) -> Option<i32> {
    init(arguments).output().expect("docker-init").status.code()
}

#[test]
fn the_exit_code_is_the_commands_also_when_it_cannot_be_run_or_is_killed() {
    assert_eq!(status(&["--", "sh", "-c", "exit 7"]), Some(7));
    assert_eq!(status(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(status(&["--", "no-such-command"]), Some(127));
    assert_eq!(status(&["--", "/"]), Some(126));
    assert_eq!(status(&[]), Some(1));
}

#[test]
fn a_signal_is_passed_on_to_the_command() {
    let mut child =
        init(&["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done"]).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    kill_process(Pid::from_raw(child.id() as i32).expect("a pid"), Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("waited").code(), Some(9));
}

#[test]
fn as_the_first_process_of_a_namespace_it_reaps_orphans() {
    // The orphan ends before the command looks; a zombie would still be listed.
    let script = "(sleep 0.05 & echo $! >&3) 3>&1 | { read orphan; while [ -e /proc/$orphan ]; do sleep 0.02; done; echo reaped; }";
    let program = env!("CARGO_BIN_EXE_docker-init");
    let done = Command::new("timeout")
        .args(["10", "unshare", "--pid", "--fork", "--mount-proc", program, "--", "sh", "-c", script])
        .output()
        .expect("unshare");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "reaped\n", "{}", String::from_utf8_lossy(&done.stderr));
}
