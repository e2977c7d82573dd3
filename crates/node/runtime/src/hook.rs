//! Programs that the configuration wants run at points of the container's life (OCI runtime.md, "Lifecycle").

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_oci::runtime::{Hook, Hooks, State};
use wharf_sys::exec::Strings;
use wharf_sys::spawn::{Spawn, spawn};
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};

/// More of a hook's output is not shown.
const SHOWN: usize = 4096;

/// Runs hooks one after the other; each reads the state from its standard input. The first that fails ends it.
pub(crate) fn run(hooks: &[Hook], kind: &str, state: &State) -> Result<(), Failure> {
    run_from(hooks, 0, kind, state)
}

/// Likewise; the first has this number in messages.
fn run_from(hooks: &[Hook], first: usize, kind: &str, state: &State) -> Result<(), Failure> {
    if hooks.is_empty() {
        return Ok(());
    }
    // A structure of plain fields always serialises.
    let text = serde_json::to_vec(state).unwrap_or_default();
    for (number, hook) in (first..).zip(hooks) {
        run_one(hook, &text).map_err(|what| {
            let subject = format!("error running {kind} hook #{number}: {}", what.subject);
            Failure { subject, ..what }
        })?;
    }
    Ok(())
}

/// Runs hooks one after the other, those after a failed one as well: nothing depends on them any more. The first failure is
/// returned (OCI runtime.md, "Lifecycle", step 13).
pub(crate) fn run_all(hooks: &[Hook], kind: &str, state: &State) -> Result<(), Failure> {
    let each = (0..hooks.len()).map(|number| run_from(&hooks[number..=number], number, kind, state));
    // All are run before the first failure is looked for.
    let outcomes: Vec<_> = each.collect();
    outcomes.into_iter().collect()
}

/// Checks what can be checked before anything is done: a path that is relative would be found by where we happen to be.
pub(crate) fn check(hooks: &Hooks) -> Result<(), Failure> {
    let lists = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
        &hooks.start_container,
        &hooks.poststart,
        &hooks.poststop,
    ];
    match lists.into_iter().flatten().find(|hook| !hook.path.is_absolute()) {
        Some(hook) => {
            Err(refuse(Stage::Config, format!("path of hook {:?} is not absolute", hook.path.display().to_string())))
        }
        None => Ok(()),
    }
}

/// Runs a program of the host that helps, without input; what it says is in the failure.
pub(crate) fn help(program: &str, words: &[String]) -> Result<(), Failure> {
    let hook = Hook { path: program.into(), args: words.to_vec(), ..Hook::default() };
    run_one(&hook, &[]).map_err(|what| Failure { subject: format!("{program}: {}", what.subject), ..what })
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), Failure> {
    let path = || hook.path.display().to_string();
    let nul = |_| refuse(Stage::Hook, "NUL byte in its path, arguments or environment");
    let program = CString::new(hook.path.as_os_str().as_encoded_bytes()).map_err(nul)?;
    let alone = [path()];
    let args = Strings::new(if hook.args.is_empty() { &alone[..] } else { &hook.args[..] }).map_err(nul)?;
    let env = Strings::new(&hook.env).map_err(nul)?;
    let (input, to_input) = pipe_with(PipeFlags::CLOEXEC).or_fail(Stage::Hook, path)?;
    let (from_output, output) = pipe_with(PipeFlags::CLOEXEC).or_fail(Stage::Hook, path)?;
    let descriptors = [(input.as_fd(), 0), (output.as_fd(), 1), (output.as_fd(), 2)];
    let request = Spawn {
        program: &program,
        args: &args,
        env: &env,
        descriptors: &descriptors,
        directory: None,
        new_session: false,
    };
    let spawned = spawn(&request).or_fail(Stage::Hook, path)?;
    drop((input, output));
    // A hook that does not read gets EPIPE here; that is its business.
    let _ = std::fs::File::from(to_input).write_all(state);
    let seconds = hook.timeout.filter(|s| *s > 0).map(|s| Duration::from_secs(s as u64));
    let shown = match follow(&from_output, &spawned.pidfd, seconds.map(|s| Instant::now() + s)) {
        Ok(shown) => shown,
        Err(Errno::TIMEDOUT) => {
            let _ = pidfd_send_signal(&spawned.pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
            return Err(refuse(Stage::Hook, format!("{} ran past the timeout of {seconds:?}", path())));
        }
        Err(e) => return Err(e).or_fail(Stage::Hook, path),
    };
    let ended = waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED).or_fail(Stage::Hook, path)?;
    let what = match ended.as_ref().map(|s| (s.exit_status(), s.terminating_signal())) {
        Some((Some(0), _)) => return Ok(()),
        Some((Some(code), _)) => format!("exit status {code}"),
        Some((_, Some(signal))) => format!("signal {signal}"),
        _ => "ended".to_owned(),
    };
    Err(refuse(Stage::Hook, format!("{what}, output: {}", String::from_utf8_lossy(&shown).trim_end())))
}

/// Reads what the hook writes until it ends; grandchildren that keep the pipe open are not waited for.
fn follow(output: &OwnedFd, pidfd: &OwnedFd, deadline: Option<Instant>) -> rustix::io::Result<Vec<u8>> {
    let mut shown = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let left = left.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
        let interest = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(output, interest)];
        match poll(if open { &mut fds[..] } else { &mut fds[..1] }, left.as_ref()) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let readable = open && !fds[1].revents().is_empty();
        let ended = !fds[0].revents().is_empty();
        if readable {
            let mut buffer = [0u8; 1024];
            match rustix::io::read(output, &mut buffer)? {
                0 => open = false,
                n => shown.extend_from_slice(&buffer[..n.min(SHOWN.saturating_sub(shown.len()))]),
            }
        } else if ended {
            return Ok(shown);
        }
    }
}
