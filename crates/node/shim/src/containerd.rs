//! The door for a real containerd: the program `containerd-shim-wharf-v2`, which is this shim by another name.
//!
//! ```text
//! containerd ── containerd-shim-wharf-v2 -namespace n -id c -address a start ──▶ socket, server in the background; prints the address
//!            ── … delete ──▶ cleans up after a server that died; prints how the task ended
//!            ── … -info  ──▶ prints what this runtime is
//! ```
//!
//! Source: containerd `core/runtime/v2/README.md` ("Shim Authoring") and `pkg/shim`.

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use wharf_oci::runtime::Spec;
use wharf_proto_task::events::{RuntimeInfo, RuntimeVersion};
use wharf_proto_task::record::{Record, RecordKind};
use wharf_proto_task::{Message, task};
use wharf_sys::exec::Strings;
use wharf_sys::spawn::{Spawn, spawn};
use wharf_types::Timestamp;

use crate::args::ArgsError;
use crate::supervisor::{Failed, system};

/// Where sockets of shims are, as containerd's own ones.
const SOCKETS: &str = "/run/containerd/s";
/// The file in the bundle that names the socket.
const ADDRESS: &str = "address";

/// Whether a program's name is the one containerd looks for (`containerd-shim-<name>-<version>`).
pub fn is_named_by_containerd(program: &Path) -> bool {
    let name = program.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.starts_with("containerd-shim-")
}

/// What containerd asks its shim's program for.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Start,
    Delete,
    Info,
    Version,
}

#[derive(Debug)]
struct Call {
    action: Action,
    namespace: String,
    id: String,
    bundle: Option<PathBuf>,
}

impl Call {
    /// Reads Go's flags: one or two dashes, value after `=` or as the next word.
    fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut words = words.into_iter();
        let mut call = Self { action: Action::Start, namespace: String::new(), id: String::new(), bundle: None };
        let mut action = None;
        while let Some(word) = words.next() {
            let word = word.to_str().ok_or_else(|| ArgsError::Unknown(word.to_string_lossy().into_owned()))?;
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                action = Some(match word {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(ArgsError::Unknown(other.to_owned())),
                });
                continue;
            };
            let (name, given) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v.to_owned())));
            let mut value = |what| match given.clone() {
                Some(value) => Ok(value),
                None => words.next().and_then(|v| v.into_string().ok()).ok_or(ArgsError::Value(what)),
            };
            match name {
                "namespace" => call.namespace = value("-namespace")?,
                "id" => call.id = value("-id")?,
                "bundle" => call.bundle = Some(value("-bundle")?.into()),
                // Addresses and logging come by environment and FIFO; these are for other kinds of shims.
                "address" => drop(value("-address")?),
                "publish-binary" => drop(value("-publish-binary")?),
                "socket" => drop(value("-socket")?),
                "debug" => {}
                "info" => action = Some(Action::Info),
                "v" | "version" => action = Some(Action::Version),
                other => return Err(ArgsError::Unknown(format!("-{other}"))),
            }
        }
        call.action = action.ok_or(ArgsError::Missing("start or delete"))?;
        if matches!(call.action, Action::Start | Action::Delete) {
            let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && !matches!(name, "." | "..");
            for (what, name) in [("-id", &call.id), ("-namespace", &call.namespace)] {
                if !plain(name) {
                    return Err(ArgsError::Value(what));
                }
            }
        }
        Ok(call)
    }
}

/// Does what containerd asks for and prints the answer.
pub fn answer(words: impl IntoIterator<Item = OsString>) -> Result<(), Failed> {
    let call = Call::parse(words)?;
    let text = match call.action {
        Action::Start => start(&call)?.into_bytes(),
        Action::Delete => delete(&call)?,
        Action::Info => RuntimeInfo {
            name: "io.containerd.wharf.v2".to_owned(),
            version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), revision: String::new() }),
        }
        .encode_to_vec(),
        Action::Version => format!("containerd-shim-wharf-v2 {}\n", env!("CARGO_PKG_VERSION")).into_bytes(),
    };
    io::stdout().write_all(&text).map_err(system("answering containerd"))
}

/// Starts the server in the bundle, which is where containerd runs us.
fn start(call: &Call) -> Result<String, Failed> {
    let bundle = std::env::current_dir().map_err(system("finding the bundle"))?;
    let events = std::env::var_os("TTRPC_ADDRESS").unwrap_or_default();
    let (listener, path) = listen_somewhere()?;
    let started = serve_in_background(call, &bundle, &events.to_string_lossy(), &listener, &path);
    let address = format!("unix://{}", path.display());
    let noted = started.and_then(|()| std::fs::write(ADDRESS, &address).map_err(system("writing the address")));
    match noted {
        Ok(()) => Ok(address),
        Err(e) => {
            let _ = std::fs::remove_file(&path);
            Err(e)
        }
    }
}

/// Listens at a new name in a folder that only root enters (CVE-2020-15257 was of sockets without a folder).
fn listen_somewhere() -> Result<(OwnedFd, PathBuf), Failed> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(SOCKETS);
    made.map_err(system("making the folder of sockets"))?;
    let mut random = [0u8; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(system("getrandom"))?;
    let name: String = random.iter().map(|b| format!("{b:02x}")).collect();
    let path = Path::new(SOCKETS).join(name);
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(system("socket"))?;
    // 0600 whatever the caller's mask is.
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = SocketAddrUnix::new(path.as_path()).and_then(|address| bind(&socket, &address));
    rustix::process::umask(mask);
    bound.map_err(system("binding the socket"))?;
    listen(&socket, 64).map_err(system("listen"))?;
    Ok((socket, path))
}

fn serve_in_background(
    call: &Call,
    bundle: &Path,
    events: &str,
    listener: &OwnedFd,
    socket: &Path,
) -> Result<(), Failed> {
    let open = |path: &Path, flags: OFlags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let null = open(Path::new("/dev/null"), OFlags::RDWR).map_err(system("opening /dev/null"))?;
    let dir = open(bundle, OFlags::PATH | OFlags::DIRECTORY).map_err(system("opening the bundle"))?;
    // containerd reads our errors from this FIFO; an older one has none.
    let log = open(Path::new("log"), OFlags::WRONLY | OFlags::NONBLOCK).ok();
    let errors = log.as_ref().unwrap_or(&null);
    let words = [
        "containerd-shim-wharf-v2",
        "--id",
        &call.id,
        "--task-dir",
        &bundle.to_string_lossy(),
        "--log",
        "none",
        "--containerd-namespace",
        &call.namespace,
        "--containerd-events",
        events,
        "--containerd-socket",
        &socket.to_string_lossy(),
    ]
    .map(str::to_owned);
    let invalid = |_| system("starting the server")(io::Error::from(io::ErrorKind::InvalidInput));
    let words = Strings::new(words).map_err(invalid)?;
    // On a mount that cannot be written: its file is what a container's first process runs at first (CVE-2019-5736).
    let image = wharf_sys::image::open_protected(c"/proc/self/exe").map_err(system("protecting the program"))?;
    let image =
        wharf_sys::descriptor::duplicate_above(image.as_fd(), 16).map_err(system("duplicating a descriptor"))?;
    let program = CString::new(format!("/proc/self/fd/{}", image.as_raw_fd())).map_err(invalid)?;
    let map = [(null.as_fd(), 0), (null.as_fd(), 1), (errors.as_fd(), 2), (listener.as_fd(), 3), (dir.as_fd(), 4)];
    let none: [String; 0] = [];
    let request = Spawn {
        program: &program,
        args: &words,
        env: &Strings::new(none).map_err(invalid)?,
        descriptors: &map,
        directory: Some(dir.as_fd()),
        new_session: true,
    };
    spawn(&request).map(drop).map_err(system("starting the server"))
}

/// Takes away what a server that died has left, and tells how the task ended: from its records, or as killed.
fn delete(call: &Call) -> Result<Vec<u8>, Failed> {
    let bundle = match &call.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(system("finding the bundle"))?,
    };
    if let Ok(address) = std::fs::read_to_string(bundle.join(ADDRESS))
        && let Some(path) = address.strip_prefix("unix://").filter(|path| Path::new(path).starts_with(SOCKETS))
    {
        let _ = std::fs::remove_file(path);
    }
    let config = std::fs::read(bundle.join("config.json")).ok();
    if let Some(spec) = config.and_then(|text| serde_json::from_slice::<Spec>(&text).ok()) {
        // A container that was never made has nothing to remove.
        let _ = wharf_runtime::kill_rest(&call.id, &spec);
        let _ = wharf_runtime::remove(&call.id, &bundle, &spec);
    }
    let records = Record::parse_all(&std::fs::read(bundle.join("records")).unwrap_or_default());
    let exit = records.iter().rev().find(|r| r.kind == RecordKind::Exit && r.exec.is_empty());
    let (pid, exit_status, at) = exit.map_or((0, 137, Timestamp::now()), |r| (r.pid, r.status, r.at));
    Ok(task::DeleteResponse { pid, exit_status, exited_at: Some(at.into()) }.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, ArgsError> {
        Call::parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn what_containerd_passes_is_read() {
        let line = "-namespace default -address /run/containerd/containerd.sock -publish-binary /usr/bin/containerd -id c1 start";
        let call = parse(line).expect("valid");
        assert_eq!((call.action, call.namespace.as_str(), call.id.as_str()), (Action::Start, "default", "c1"));
        let call = parse("-namespace=k8s.io -id c1 -bundle /b -debug delete").expect("valid");
        assert_eq!((call.action, call.bundle), (Action::Delete, Some("/b".into())));
        assert_eq!(parse("-info").expect("valid").action, Action::Info);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for line in [
            "-namespace n -id ../x start",
            "-namespace a/b -id c start",
            "-id c start",
            "-namespace n -id c",
            "-x start",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_name_decides_which_program_it_is() {
        assert!(is_named_by_containerd(Path::new("/usr/bin/containerd-shim-wharf-v2")));
        assert!(!is_named_by_containerd(Path::new("wharf-shim")));
    }
}
