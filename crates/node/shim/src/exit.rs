//! The end of processes: reaping, draining, recording, answering.

use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, wait};
use wharf_fault::point;
use wharf_logs::Stream;
use wharf_proto_task::record::RecordKind;
use wharf_proto_task::{Message, events, task};
use wharf_types::{Signal, Timestamp};

use crate::container::{self, Container};
use crate::poll::{Ready, Token};
use crate::process::Phase;
use crate::records::report;
use crate::supervisor::{INIT, Supervisor};

/// How long the pipes of an ended process are kept open for others that hold them. Source: moby `daemon/monitor.go`, which gives
/// streams two seconds.
const GRACE: Duration = Duration::from_secs(2);

/// How long a kill may take to be counted after the kernel said that memory ran out: looked at this often, this many times.
const OOM_LOOK: Duration = Duration::from_millis(20);
const OOM_LOOKS: u32 = 50;

impl Supervisor {
    /// Collects everything that has ended.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code.unsigned_abs(),
                (None, signal) => 128 + signal.unwrap_or(0).unsigned_abs(),
            };
            self.note_end(pid.as_raw_pid(), code);
        }
    }

    fn note_end(&mut self, pid: i32, status: u32) {
        if self.compressor == Some(pid) {
            self.end_compression();
            return;
        }
        if self.end_relay(pid) {
            return;
        }
        let pid = pid.unsigned_abs();
        let found = self.processes.iter().find(|(_, p)| p.pid == pid && !p.is_over()).map(|(n, _)| *n);
        // Others are orphans of the container that came to us as subreaper.
        let Some(number) = found else { return };
        let at = Timestamp::now();
        point("shim.reaped");
        if let Some(process) = self.processes.get_mut(&number) {
            process.phase = Phase::Draining { status, at };
            process.grace = Some(Instant::now() + GRACE);
            process.stdin = None;
            process.console = None;
        }
        self.drain(number);
        self.let_go(number);
        if number == INIT {
            let open = self.processes.get(&INIT).is_some_and(|p| p.has_output());
            if open && let Some(container) = &self.container {
                // Processes that share the host's pid namespace outlive the first one; containerd's shim kills them, too.
                if let Err(e) = container.kill(Signal::KILL, true) {
                    report(&wharf_error::Chain(&e));
                }
            }
            self.stop_relays();
            self.check_drained(INIT);
        } else {
            // Everything an exec wrote is delivered; what its children still write follows until the grace is over.
            self.conclude(number);
            self.check_drained(number);
        }
    }

    /// Ends a process whose outputs are all closed.
    pub(crate) fn check_drained(&mut self, number: u32) {
        let Some(process) = self.processes.get(&number) else { return };
        if process.has_output() || !process.is_over() {
            return;
        }
        self.conclude(number);
        self.end_all_attached(number);
        self.forget_if_deleted(number);
        self.release_if_over();
    }

    /// Forgets a deleted process once nobody holds its pipes any more.
    pub(crate) fn forget_if_deleted(&mut self, number: u32) {
        if self.processes.get(&number).is_some_and(|p| p.deleted && !p.has_output()) {
            self.forget_process(number);
        }
    }

    /// Records and reports the end of a process. Once.
    fn conclude(&mut self, number: u32) {
        let Some(process) = self.processes.get(&number) else { return };
        let Phase::Draining { status, at } = process.phase else { return };
        let (exec_id, pid) = (process.exec_id.clone(), process.pid);
        if number == INIT {
            if let Some(Err(e)) = self.spool.as_mut().map(|w| w.finish(at)) {
                report(&wharf_error::Chain(&e));
            }
            self.note_oom();
        }
        point("shim.drained");
        if let Err(e) = self.records.put(RecordKind::Exit, &exec_id, pid, status, at) {
            report(&format_args!("recording an exit: {e}"));
        }
        point("shim.recorded");
        let id = if exec_id.is_empty() { self.args.id.clone() } else { exec_id };
        let container_id = self.args.id.clone();
        self.publish(&events::TaskExit { container_id, id, pid, exit_status: status, exited_at: Some(at.into()) });
        let Some(process) = self.processes.get_mut(&number) else { return };
        process.phase = Phase::Stopped { status, at };
        let waiters = std::mem::take(&mut process.waiters);
        let oom = self.oom_kills > 0;
        let answer = task::WaitResponse { exit_status: status, exited_at: Some(at.into()), oom }.encode_to_vec();
        for (client, stream) in waiters {
            self.answer(client, stream, Ok(answer.clone()));
            self.flush_client(client);
        }
        point("shim.reported");
    }

    /// Gives up waiting for others that hold an ended process's pipes.
    pub(crate) fn pass_deadlines(&mut self, now: Instant) {
        if self.publish_deadline().is_some_and(|until| until <= now) {
            self.push_events();
        }
        self.look_for_oom(now);
        let due: Vec<u32> = self.deadlines().filter(|(_, until)| *until <= now).map(|(n, _)| n).collect();
        for number in due {
            self.drain(number);
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.close_output(number, stream);
            }
            self.check_drained(number);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let look = self.oom_look.map(|(when, _)| when);
        self.deadlines().map(|(_, until)| until).chain(self.publish_deadline()).chain(look).min()
    }

    fn deadlines(&self) -> impl Iterator<Item = (u32, Instant)> {
        self.processes.iter().filter(|(_, p)| p.has_output()).filter_map(|(n, p)| Some((*n, p.grace?)))
    }

    /// Removes the container's cgroup once its first process is over and answered for.
    fn release_if_over(&mut self) {
        let over = self.processes.get(&INIT).is_some_and(|p| matches!(p.phase, Phase::Stopped { .. }));
        if over && let Err(e) = self.release_container() {
            report(&wharf_error::Chain(&e));
        }
    }

    /// Removes what the kernel holds for the container.
    pub(crate) fn release_container(&mut self) -> Result<(), container::Error> {
        if let Some(watch) = self.oom.take() {
            self.poll.remove(&watch);
        }
        self.oom_look = None;
        self.container.take().map_or(Ok(()), Container::delete)
    }

    /// Takes back a container that was created and not started.
    pub(crate) fn abandon(&mut self) {
        let created = self.processes.get(&INIT).is_some_and(|p| matches!(p.phase, Phase::Created(_)));
        if !created {
            return;
        }
        if let Err(e) = self.release_container() {
            report(&wharf_error::Chain(&e));
        }
        self.drop_process(INIT);
    }

    /// Forgets a process that never ran.
    pub(crate) fn drop_process(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.close_output(number, stream);
        }
        self.forget_process(number);
        self.end_all_attached(number);
    }

    /// Forgets a process that is over.
    pub(crate) fn forget_process(&mut self, number: u32) {
        if let Some(mut process) = self.processes.remove(&number) {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(output) = process.output(stream).take().filter(|o| !o.paused) {
                    self.poll.remove(&output.fd);
                }
            }
            let gone = wharf_proto_task::Status::new(wharf_proto_task::Code::NotFound, "process was deleted");
            for (client, stream) in process.waiters {
                self.answer(client, stream, Err(gone.clone()));
                self.flush_client(client);
            }
        }
        self.end_all_attached(number);
    }

    /// Starts watching for out-of-memory kills.
    pub(crate) fn watch_oom(&mut self) {
        let Some(cgroup) = self.container.as_ref().and_then(Container::cgroup) else { return };
        match cgroup.watch_oom() {
            Ok(Some(watch)) => {
                if self.poll.add(&watch, Token::Oom, Ready::IN).is_ok() {
                    self.oom = Some(watch);
                }
            }
            Ok(None) => {}
            Err(e) => report(&wharf_error::Chain(&e)),
        }
    }

    /// The kernel says that the group has no memory left. Version 1 says so before it kills, and never again, so the count
    /// may have to be looked at a little later.
    pub(crate) fn hear_oom(&mut self) {
        let before = self.oom_kills;
        self.note_oom();
        if self.oom_kills == before && self.oom.is_some() {
            self.oom_look = Some((Instant::now() + OOM_LOOK, 0));
        }
    }

    fn look_for_oom(&mut self, now: Instant) {
        let Some((_, times)) = self.oom_look.take_if(|(when, _)| *when <= now) else { return };
        let before = self.oom_kills;
        self.note_oom();
        if self.oom_kills == before && times < OOM_LOOKS {
            self.oom_look = Some((now + OOM_LOOK, times + 1));
        }
    }

    /// Records kills since the last look.
    pub(crate) fn note_oom(&mut self) {
        let Some(watch) = &mut self.oom else { return };
        let kills = watch.acknowledge().unwrap_or(self.oom_kills);
        if kills > self.oom_kills {
            self.oom_kills = kills;
            let pid = self.processes.get(&INIT).map_or(0, |p| p.pid);
            if let Err(e) = self.records.put(RecordKind::Oom, "", pid, 0, Timestamp::now()) {
                report(&format_args!("recording an out-of-memory kill: {e}"));
            }
            let container_id = self.args.id.clone();
            self.publish(&events::TaskOOM { container_id });
        }
    }
}
