//! The first process and those that exec adds.

use std::path::PathBuf;

use wharf_api_types::Ulimit;
use wharf_oci::runtime::{Capabilities, ConsoleSize, Process, Rlimit, User};

use super::{Identity, Input, SpecError, security};

/// What Docker puts in front where the image names no PATH.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where docker-init is seen in a container.
pub(super) const INIT: &str = "/sbin/docker-init";

/// Joins environments: later entries take the place of earlier ones; an entry without `=` removes the name.
fn environment(base: Vec<String>, more: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env = base;
    for entry in more {
        let position = env.iter().position(|have| name(have) == name(entry));
        match (position, entry.contains('=')) {
            (Some(i), true) => env[i] = entry.clone(),
            (Some(i), false) => {
                env.remove(i);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    env
}

fn with_home(mut env: Vec<String>, identity: &Identity) -> Vec<String> {
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        // runc's default where the passwd file does not know the user.
        env.push(format!("HOME={}", identity.home.as_deref().unwrap_or("/")));
    }
    env
}

fn user(identity: &Identity) -> User {
    User { uid: identity.uid, gid: identity.gid, umask: None, additional_gids: identity.groups.clone() }
}

/// Narrows the sets for a user who is not root: such a process has nothing in force, as execve(2) would leave it.
fn for_user(set: &[String], uid: u32) -> Capabilities {
    let bounding = set.to_vec();
    let usable = if uid == 0 { set.to_vec() } else { Vec::new() };
    // Nothing is inheritable (CVE-2022-24769) or ambient (CVE-2016-8867).
    Capabilities {
        bounding,
        effective: usable.clone(),
        permitted: usable,
        inheritable: Vec::new(),
        ambient: Vec::new(),
    }
}

fn rlimits(own: Option<&Vec<Ulimit>>, defaults: &[Ulimit]) -> Vec<Rlimit> {
    let own: &[Ulimit] = own.map_or(&[], Vec::as_slice);
    let inherited = defaults.iter().filter(|d| !own.iter().any(|o| o.name == d.name));
    let limit = |u: &Ulimit| Rlimit {
        kind: format!("RLIMIT_{}", u.name.to_ascii_uppercase()),
        // -1 is no limit, which is the all-ones value.
        hard: u.hard as u64,
        soft: u.soft as u64,
    };
    own.iter().chain(inherited).map(limit).collect()
}

pub(super) fn first(input: &Input<'_>, capabilities: Vec<String>) -> Result<Process, SpecError> {
    let (config, host) = (input.config, input.host);
    let mut args = input.args.clone();
    if wants_init(input) {
        if input.engine.init_path.is_none() {
            return Err(SpecError::NoInit);
        }
        args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let mut base = vec![PATH.to_owned(), format!("HOSTNAME={}", shown_host_name(input))];
    if config.tty {
        base.push("TERM=xterm".to_owned());
    }
    let [height, width] = host.console_size.0;
    Ok(Process {
        terminal: config.tty,
        console_size: (config.tty && height > 0 && width > 0)
            .then_some(ConsoleSize { height: height.min(65_535) as u16, width: width.min(65_535) as u16 }),
        user: user(input.identity),
        args,
        env: with_home(environment(base, config.env.as_deref().unwrap_or_default()), input.identity),
        cwd: PathBuf::from(if config.working_dir.is_empty() { "/" } else { &config.working_dir }),
        capabilities: Some(for_user(&capabilities, input.identity.uid)),
        rlimits: rlimits(host.ulimits.as_ref(), &input.engine.ulimits),
        no_new_privileges: security::no_new_privileges(host, input.engine.no_new_privileges),
        oom_score_adj: Some(host.oom_score_adj as i32),
        ..Process::default()
    })
}

pub(super) fn wants_init(input: &Input<'_>) -> bool {
    // With the host's or another container's processes, pid 1 is not ours to provide.
    input.host.init.unwrap_or(input.engine.init) && input.host.pid_mode.is_empty()
}

fn shown_host_name<'a>(input: &Input<'a>) -> &'a str {
    if input.config.hostname.is_empty() { input.host_name } else { &input.config.hostname }
}

/// What a process that exec adds is made of.
#[derive(Debug)]
pub struct ExecInput<'a> {
    /// The container's first process, as it was configured.
    pub first: &'a Process,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Further environment.
    pub env: &'a [String],
    /// Working folder; empty is the container's.
    pub cwd: &'a str,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The terminal's rows and columns, 0 for unknown.
    pub console: [u32; 2],
    /// Whether it gets all capabilities.
    pub privileged: bool,
    /// Another user than the container's.
    pub identity: Option<&'a Identity>,
}

/// Makes the process of an exec.
pub fn exec_process(input: &ExecInput<'_>) -> Process {
    let first = input.first;
    let mut base: Vec<String> = first.env.iter().filter(|e| !e.starts_with("TERM=")).cloned().collect();
    if input.tty {
        base.push("TERM=xterm".to_owned());
    }
    let mut process = Process { terminal: input.tty, ..first.clone() };
    if let Some(identity) = input.identity {
        base.retain(|e| !e.starts_with("HOME="));
        process.user = user(identity);
    }
    process.env = environment(base, input.env);
    if let Some(identity) = input.identity {
        process.env = with_home(process.env, identity);
    }
    let [height, width] = input.console;
    process.console_size = (input.tty && height > 0 && width > 0)
        .then_some(ConsoleSize { height: height.min(65_535) as u16, width: width.min(65_535) as u16 });
    process.args = input.args.clone();
    if !input.cwd.is_empty() {
        process.cwd = PathBuf::from(input.cwd);
    }
    let bounding = match (input.privileged, &first.capabilities) {
        (true, _) => security::all_capabilities(),
        (false, Some(have)) => have.bounding.clone(),
        (false, None) => Vec::new(),
    };
    process.capabilities = Some(for_user(&bounding, process.user.uid));
    process
}
