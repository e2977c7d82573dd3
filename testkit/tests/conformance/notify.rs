//! `SCMP_ACT_NOTIFY`: the listener of the filter comes to the agent, which answers.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::bundle::{Bundle, eventually};

/// A bundle whose mkdir(2) asks the agent at the socket.
fn asking(script: &str) -> (Bundle, UnixListener) {
    let bundle = Bundle::new(script);
    let socket = bundle.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("listening");
    let path = socket.to_str().expect("UTF-8").to_owned();
    let bundle = bundle.with(|c| {
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "for the agent",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
    });
    (bundle, listener)
}

/// Takes what one process sends: the document and the listener.
fn receive(listener: &UnixListener) -> (Value, OwnedFd) {
    let (stream, _) = listener.accept().expect("connected");
    let mut bytes = vec![0u8; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let received = received.expect("received").bytes;
    let fd = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (serde_json::from_slice(&bytes[..received]).expect("JSON"), fd.expect("a descriptor"))
}

#[test]
fn the_agent_gets_the_listener_with_the_containers_state() {
    let (bundle, agent) = asking("mkdir /made; echo after");
    let waiting = std::thread::spawn(move || receive(&agent));
    bundle.start();
    let (told, listener) = waiting.join().expect("received");
    assert_eq!(told["fds"], json!(["seccompFd"]), "{told}");
    assert_eq!(
        (told["metadata"].as_str(), told["state"]["id"].as_str()),
        (Some("for the agent"), Some(bundle.id.as_str()))
    );
    assert_eq!(told["pid"], bundle.state()["pid"], "{told}");
    let link =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).expect("link");
    assert_eq!(link.to_str(), Some("anon_inode:seccomp notify"));
    let mut fds = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let long = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&long)), Ok(1), "mkdir waits for an answer");
    assert_eq!(bundle.output(), "");
    // With the last listener gone the kernel answers ENOSYS.
    drop(listener);
    eventually("the end", || bundle.output().ends_with("after\n"));
    assert!(!bundle.rootfs().join("made").exists());
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn a_further_process_has_a_listener_of_its_own() {
    let (bundle, agent) = asking("sleep 1000");
    let first = agent.try_clone().expect("duplicated");
    let waiting = std::thread::spawn(move || receive(&first));
    bundle.start();
    let _first = waiting.join().expect("received");
    let waiting = std::thread::spawn(move || receive(&agent));
    let exec = bundle.command(&["exec", &bundle.id, "mkdir", "/made"]).spawn();
    let (told, listener) = waiting.join().expect("received");
    assert_ne!(told["pid"], bundle.state()["pid"], "{told}");
    drop(listener);
    assert_ne!(exec.expect("spawned").wait().expect("waited").code(), Some(0));
}

#[test]
fn without_an_agent_nothing_starts() {
    let (bundle, agent) = asking("true");
    drop(agent);
    std::fs::remove_file(bundle.path().join("agent.sock")).expect("removed");
    assert_ne!(bundle.run().code, Some(0));
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), [""; 0]);
}
