//! A further process in a container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_cgroup::Entrance;
use wharf_oci::runtime as oci;
use wharf_sys::clone::{self, Cloned, flags};
use wharf_types::{Failure, Stage};

use crate::affinity::Affinity;
use crate::container::Container;
use crate::create::{cgroup_failure, clone_into};
use crate::failure::{OrFail, refuse};
use crate::host::Proc;
use crate::mounting::open_host;
use crate::namespaces::{Birthplace, become_root};
use crate::process::{ProcessPlan, Ready, Streams, Surroundings, limit};
use crate::rooted::Root;
use crate::wire::{self, Channel, Message};
use crate::{ExecRequest, Process, Stdio, console};

impl Container {
    /// Starts one more process in the container's namespaces and cgroup.
    ///
    /// Errors: all until its program runs.
    pub fn exec(&self, request: ExecRequest<'_>) -> Result<Process, Failure> {
        let linux = oci::Linux { personality: self.shared.personality.clone(), ..oci::Linux::default() };
        let affinity = Affinity::plan(request.process)?;
        let around = Surroundings {
            id: &self.shared.state.id,
            linux: &linux,
            filter: self.shared.filter.as_ref(),
            preserve_fds: request.preserve_fds,
            keyring: self.shared.keyring,
            user_namespace: self.shared.namespaces & flags::NEWUSER != 0,
        };
        let mut process = ProcessPlan::new(request.process, around)?;
        if let Some(agent) = &self.shared.agent {
            process.agent = Some(agent.connect(&self.shared.state(oci::Status::Running, Some(self.pid)))?);
        }
        let init = Pid::from_raw(self.pid).ok_or_else(|| refuse(Stage::Config, "container not running"))?;
        let entrance = match request.groups {
            [] => self.cgroup.entrance_beside(init),
            groups => self.cgroup.below(groups).and_then(|group| group.entrance()),
        }
        .map_err(cgroup_failure)?;
        let proc = Proc::open()?;
        let plan = Plan {
            container: self,
            process,
            entrance,
            proc,
            stdio: request.stdio,
            affinity,
            privileged: crate::idmap::is_privileged(),
        };
        plan.birth()
    }
}

struct Plan<'a> {
    container: &'a Container,
    process: ProcessPlan<'a>,
    entrance: Entrance,
    proc: Proc,
    stdio: Stdio<'a>,
    affinity: Affinity,
    /// Whether the caller is privileged on the host; asked before the process is another.
    privileged: bool,
}

impl Plan<'_> {
    fn birth(&self) -> Result<Process, Failure> {
        let (ours, theirs) = wire::pair().or_fail(Stage::Process, || "socket pair")?;
        let namespaces = self.container.shared.namespaces;
        if namespaces & flags::NEWUSER != 0 && !self.privileged {
            return self.birth_by_stand_in(ours, theirs);
        }
        let place = Birthplace::for_exec(self.container.pidfd.as_fd(), namespaces)?;
        let before = self.affinity.enter_initial()?;
        let (cloned, into) = clone_into(0, self.entrance.clone_target())?;
        let (pid, pidfd) = match cloned {
            Cloned::Child => {
                drop(ours);
                // Its drop would go back to the caller's namespaces.
                std::mem::forget(place);
                self.run(theirs, into)
            }
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((place, theirs));
        Affinity::leave_initial(before);
        match self.attend(pid, &ours) {
            Ok(console) => Ok(Process { pid, pidfd, console }),
            Err(failure) => {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                Err(failure)
            }
        }
    }

    /// For a caller without privileges, who may join namespaces only from within the user namespace they belong to: a child goes
    /// there and makes the process as its own sibling.
    fn birth_by_stand_in(&self, ours: Channel, theirs: Channel) -> Result<Process, Failure> {
        let before = self.affinity.enter_initial()?;
        let (cloned, into) = clone_into(0, self.entrance.clone_target())?;
        let stand_in = match cloned {
            Cloned::Child => {
                drop(ours);
                self.stand_in(theirs, into)
            }
            Cloned::Parent { pidfd, .. } => pidfd,
        };
        drop(theirs);
        Affinity::leave_initial(before);
        let (pid, pidfd) = crate::create::receive_process(&ours, &stand_in)?;
        match self.attend(pid, &ours) {
            Ok(console) => Ok(Process { pid, pidfd, console }),
            Err(failure) => {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                Err(failure)
            }
        }
    }

    fn stand_in(&self, channel: Channel, cloned_into: bool) -> ! {
        let namespaces = self.container.shared.namespaces;
        let made = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .or_fail(Stage::Process, || "make process not dumpable")
            .and_then(|()| {
                let kinds = namespaces & (flags::NEWUSER | flags::NEWPID | flags::NEWTIME);
                clone::setns(self.container.pidfd.as_fd(), kinds).or_fail(Stage::Namespace, || "join user namespace")
            })
            .and_then(|()| become_root())
            .and_then(|()| clone::clone3(flags::PARENT, None).or_fail(Stage::Namespace, || "clone3"));
        // Nobody is left to tell if telling fails.
        let _ = match made {
            Ok(Cloned::Child) => self.run(channel, cloned_into),
            Ok(Cloned::Parent { pidfd, .. }) => channel.process(pidfd.as_fd()),
            Err(failure) => channel.failed(&failure),
        };
        clone::exit_now(0)
    }

    fn attend(&self, pid: i32, channel: &Channel) -> Result<Option<OwnedFd>, Failure> {
        let spec = self.process.spec;
        if let Some(score) = spec.oom_score_adj {
            let path = PathBuf::from(format!("{pid}/oom_score_adj"));
            self.proc
                .write(&path, score.to_string().as_bytes())
                .or_fail(Stage::Process, || format!("set oom_score_adj to {score}"))?;
        }
        let mut console = None;
        loop {
            match channel.receive().or_fail(Stage::Process, || "read from the new process")? {
                Message::Console(fd) => console = Some(fd),
                Message::NeedPid => {
                    channel.give_pid(pid).or_fail(Stage::Process, || "answer the new process")?;
                }
                Message::Ready => {
                    if self.process.limited_by_caller {
                        limit(Some(pid), &spec.rlimits)?;
                    }
                    channel.give_leave().or_fail(Stage::Process, || "answer the new process")?;
                }
                Message::Failed(failure) => return Err(failure),
                Message::Closed => return Ok(console),
                other => return Err(refuse(Stage::Process, format!("unexpected message {other:?}"))),
            }
        }
    }

    fn run(&self, channel: Channel, cloned_into: bool) -> ! {
        let failure = match self.prepare(&channel, cloned_into) {
            Err(failure) => failure,
            Ok(ready) => match channel.wait_for_leave() {
                Ok(()) => {
                    if crate::weaken::is_dropped("linger") {
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                    self.process.launch(&ready)
                }
                Err(_) => clone::exit_now(1),
            },
        };
        // Nobody is left to tell if this fails.
        let _ = channel.failed(&failure);
        clone::exit_now(1)
    }

    fn prepare(&self, channel: &Channel, cloned_into: bool) -> Result<Ready, Failure> {
        // CVE-2016-9962: processes of the container must not look into us, trace us or take our descriptors while we
        // are among them. Execve resets it.
        if !crate::weaken::is_dropped("dumpable") {
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .or_fail(Stage::Process, || "make process not dumpable")?;
        }
        rustix::process::setsid().or_fail(Stage::Process, || "setsid")?;
        self.entrance.enter(cloned_into).or_fail(Stage::Cgroup, || "enter cgroup")?;
        self.affinity.enter_final()?;
        let mut own = self.container.shared.namespaces & !(flags::NEWPID | flags::NEWTIME);
        let already = own & flags::NEWUSER != 0 && !self.privileged;
        if already {
            // The stand-in joined it; joining where one is is an error.
            own &= !flags::NEWUSER;
        }
        if own != 0 {
            // All at once (Linux 5.8): the kernel takes the user namespace first and checks rights against both.
            clone::setns(self.container.pidfd.as_fd(), own).or_fail(Stage::Namespace, || "join namespaces")?;
        }
        if own & flags::NEWUSER != 0 {
            become_root()?;
        }
        self.process.early(&self.proc)?;
        let streams = match self.stdio {
            Stdio::Descriptors(fds) => Streams::Given(fds),
            Stdio::Terminal => {
                let root = open_host(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY);
                let root = Root::new(root.or_fail(Stage::Console, || "open /")?);
                let console = console::open(&root, self.process.spec.console_size)?;
                channel.console(console.master.as_fd()).or_fail(Stage::Console, || "hand over terminal")?;
                Streams::Terminal(console.slave)
            }
        };
        let pid = match self.process.agent {
            Some(_) => channel.need_pid().or_fail(Stage::Seccomp, || "ask for the process id")?,
            None => 0,
        };
        let ready = self.process.settle(streams, &[channel.as_fd().as_raw_fd()], pid)?;
        channel.ready().or_fail(Stage::Process, || "report readiness")?;
        Ok(ready)
    }
}
