//! The supervisor: everything the shim holds, and the loop that turns events into steps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::net::{SocketFlags, accept_with};
use wharf_logs::{Stream, Writer};
use wharf_sys::signal::SignalFd;

use crate::args::{Args, ArgsError};
use crate::attached::Attached;
use crate::client::Client;
use crate::container::Container;
use crate::poll::{Poll, Ready, Token};
use crate::process::Process;
use crate::publish::Publisher;
use crate::records::{Records, report};
use crate::relay::Relay;

/// The number of the container's first process in [`Supervisor::processes`].
pub(crate) const INIT: u32 = 0;

/// Numbers of the inherited descriptors. Source: ARCHITECTURE.md.
const LISTENER_FD: i32 = 3;
const LOG_FD: i32 = 4;

/// Why the shim could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The command line.
    #[error("command line")]
    Args(#[from] ArgsError),
    /// The log.
    #[error("log")]
    Log(#[from] wharf_logs::LogError),
    /// A system call.
    #[error("{operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl wharf_error::HasKind for Failed {
    fn kind(&self) -> wharf_error::Kind {
        match self {
            Failed::Args(e) => e.kind(),
            Failed::Log(e) => e.kind(),
            Failed::System { .. } => wharf_error::Kind::System,
        }
    }
}

pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Failed {
    move |e| Failed::System { operation, source: e.into() }
}

/// Where this run's output begins in the spool.
#[derive(Debug)]
pub(crate) struct RunStart {
    pub(crate) file: Rc<File>,
    pub(crate) offset: u64,
}

/// Everything the shim holds.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) args: Args,
    pub(crate) poll: Poll,
    listener: OwnedFd,
    signals: SignalFd,
    pub(crate) netns: Option<OwnedFd>,
    /// Held for their lifetime only.
    pub(crate) held: Vec<OwnedFd>,
    pub(crate) records: Records,
    pub(crate) spool: Option<Writer>,
    pub(crate) run_start: Option<RunStart>,
    /// Pid of the child that compresses a rotated file.
    pub(crate) compressor: Option<i32>,
    pub(crate) container: Option<Container>,
    pub(crate) oom: Option<wharf_cgroup::OomWatch>,
    pub(crate) oom_kills: u64,
    /// When to look again whether a kill was counted, and how often that was done.
    pub(crate) oom_look: Option<(Instant, u32)>,
    pub(crate) paused: bool,
    pub(crate) processes: BTreeMap<u32, Process>,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) attached: BTreeMap<u32, Attached>,
    pub(crate) relays: BTreeMap<u32, Relay>,
    /// The way to a real containerd, if one is served.
    pub(crate) publisher: Option<Publisher>,
    next_number: u32,
    /// Whether Shutdown was asked for; with `now`, attached clients are not waited for.
    pub(crate) shutdown: Option<bool>,
    /// The read buffer of output pipes: one for all, because there is one thread.
    pub(crate) buffer: Vec<u8>,
}

/// Runs a shim until it is told to shut down. Must be called in a process with one thread.
pub fn run(args: Args) -> Result<(), Failed> {
    // Executed through a descriptor, whose number would be the name that ps(1) shows.
    rustix::thread::set_name(c"wharf-shim").map_err(system("naming the process"))?;
    std::env::set_current_dir(&args.task_dir).map_err(system("chdir to the task folder"))?;
    let mut supervisor = Supervisor::start(args)?;
    let outcome = supervisor.serve();
    if let Some(containerd) = &supervisor.args.containerd {
        // Gone with the bundle otherwise; nobody connects to it any more.
        let _ = std::fs::remove_file(&containerd.socket);
    }
    if let Err(e) = &outcome {
        report(&wharf_error::Chain(e));
    }
    outcome
}

impl Supervisor {
    fn start(args: Args) -> Result<Supervisor, Failed> {
        let inherit = |number| wharf_sys::descriptor::inherit(number).map_err(system("taking an inherited descriptor"));
        let listener = inherit(LISTENER_FD)?;
        let log_dir = inherit(LOG_FD)?;
        let netns = args.netns_fd.map(inherit).transpose()?;
        let held = args.hold_fds.iter().map(|n| inherit(*n)).collect::<Result<Vec<_>, _>>()?;
        rustix::io::ioctl_fionbio(&listener, true).map_err(system("unblocking the listener"))?;
        become_supervisor()?;
        let signals = SignalFd::new(&[rustix::process::Signal::CHILD.as_raw()]).map_err(system("signalfd"))?;
        let poll = Poll::new().map_err(system("epoll"))?;
        poll.add(&listener, Token::Listener, Ready::IN).map_err(system("watching the listener"))?;
        poll.add(&signals, Token::Signals, Ready::IN).map_err(system("watching signals"))?;
        let mut relays = BTreeMap::new();
        for (number, relay) in (0..).zip(&args.relays) {
            let relay = Relay::new(inherit(relay.fd)?, relay.to);
            poll.add(&relay.listener, Token::Relay(number), Ready::IN).map_err(system("watching a relay"))?;
            relays.insert(number, relay);
        }
        let spool = Writer::open(log_dir, &args.id, args.log.clone())?;
        let run_start = spool.as_ref().map(|w| RunStart { file: w.file(), offset: w.position().offset });
        Ok(Supervisor {
            poll,
            listener,
            signals,
            netns,
            held,
            records: Records::open().map_err(system("opening records"))?,
            spool,
            run_start,
            compressor: None,
            container: None,
            oom: None,
            oom_kills: 0,
            oom_look: None,
            paused: false,
            processes: BTreeMap::new(),
            clients: BTreeMap::new(),
            attached: BTreeMap::new(),
            relays,
            publisher: args.containerd.as_ref().map(|c| Publisher::new(c.events.clone(), c.namespace.clone())),
            next_number: INIT,
            shutdown: None,
            buffer: Vec::new(),
            args,
        })
    }

    fn serve(&mut self) -> Result<(), Failed> {
        let mut events = Vec::with_capacity(16);
        while !self.may_end() {
            self.poll.wait(&mut events, self.next_deadline()).map_err(system("epoll_wait"))?;
            for (token, ready) in events.drain(..) {
                self.handle(token, ready)?;
            }
            self.pass_deadlines(Instant::now());
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, ready: Ready) -> Result<(), Failed> {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => {
                while self.signals.read().map_err(system("reading signals"))?.is_some() {}
                self.reap();
                Ok(())
            }
            Token::Oom => {
                self.hear_oom();
                Ok(())
            }
            Token::Client(n) => {
                self.serve_client(n, ready);
                Ok(())
            }
            Token::Attached(n) => {
                self.serve_attached(n, ready);
                Ok(())
            }
            Token::Stdout(n) => {
                self.pump(n, Stream::Stdout);
                Ok(())
            }
            Token::Stderr(n) => {
                self.pump(n, Stream::Stderr);
                Ok(())
            }
            Token::Stdin(n) => {
                self.feed(n);
                Ok(())
            }
            Token::Relay(n) => {
                self.start_relay(n);
                Ok(())
            }
            Token::Source(n) => {
                self.read_source(n);
                Ok(())
            }
            Token::Sink(n) => {
                self.flush_sink(n);
                Ok(())
            }
            Token::Publisher => {
                self.hear_publisher();
                Ok(())
            }
        }
    }

    fn accept(&mut self) -> Result<(), Failed> {
        loop {
            let fd = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(fd) => fd,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {
                    return Ok(());
                }
                Err(e) => return Err(system("accept")(e)),
            };
            let number = self.number();
            if self.poll.add(&fd, Token::Client(number), Ready::IN).is_ok() {
                self.clients.insert(number, Client::new(fd));
            }
        }
    }

    /// A number that was never used for anything else.
    pub(crate) fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    /// Shutdown was asked for, nothing runs, and all that clients wait for is delivered.
    fn may_end(&self) -> bool {
        let Some(now) = self.shutdown else { return false };
        let waiting = !self.attached.is_empty() && !now;
        let answering = self.clients.values().any(Client::has_output);
        let telling = self.publisher.as_ref().is_some_and(|p| p.is_busy() && p.is_connected());
        !waiting && !answering && !telling && self.compressor.is_none()
    }

    /// The number of a process by exec id.
    pub(crate) fn find(&self, exec_id: &str) -> Option<u32> {
        if exec_id.is_empty() {
            return self.processes.contains_key(&INIT).then_some(INIT);
        }
        self.processes.iter().find(|(_, p)| p.exec_id == exec_id && !p.deleted).map(|(n, _)| *n)
    }

    pub(crate) fn watch_output(&self, number: u32, stream: Stream) {
        let Some(process) = self.processes.get(&number) else { return };
        let (output, token) = match stream {
            Stream::Stdout => (&process.stdout, Token::Stdout(number)),
            Stream::Stderr => (&process.stderr, Token::Stderr(number)),
        };
        if let Some(output) = output
            && let Err(e) = self.poll.add(output.fd.as_fd(), token, Ready::IN)
        {
            report(&format_args!("watching output: {e}"));
        }
    }
}

/// Orphans of the container come to us, and the kernel's out-of-memory killer looks elsewhere first. The container's own
/// processes get the score of their configuration.
fn become_supervisor() -> Result<(), Failed> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(system("becoming subreaper"))?;
    // Children get an empty mask from the runtime. SIGPIPE is ignored by Rust's start-up already.
    wharf_sys::signal::set_mask(&[rustix::process::Signal::CHILD.as_raw()]).map_err(system("blocking SIGCHLD"))?;
    // Lowering it needs CAP_SYS_RESOURCE; without, the shim is only less protected.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    std::fs::write("shim.pid", rustix::process::getpid().to_string()).map_err(system("writing shim.pid"))
}
