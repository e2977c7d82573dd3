//! The shim's command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use wharf_logs::Config;

/// A listening descriptor and where its connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayArg {
    /// Number of the inherited listening socket.
    pub fd: i32,
    /// Address inside the container's network.
    pub to: SocketAddr,
}

/// An OCI runtime of another maker, which makes the container instead of the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// The program, absolute.
    pub path: String,
    /// What it is given before everything else.
    pub args: Vec<String>,
}

/// The checked command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// The container.
    pub id: String,
    /// The task folder, which becomes the working directory.
    pub task_dir: PathBuf,
    /// How output is kept.
    pub log: Config,
    /// Number of the inherited network namespace, if there is one.
    pub netns_fd: Option<i32>,
    /// Numbers of inherited sockets that are only held.
    pub hold_fds: Vec<i32>,
    /// Relays.
    pub relays: Vec<RelayArg>,
    /// What makes the container, if it is not the library.
    pub runtime: Option<Runtime>,
    /// The containerd that is served instead of dockerd.
    pub containerd: Option<Containerd>,
}

/// A real containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerd {
    /// Its namespace of the container.
    pub namespace: String,
    /// Its socket for events; empty for none.
    pub events: PathBuf,
    /// Our own socket, which goes when we do.
    pub socket: PathBuf,
}

/// A command line that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// Unknown argument.
    #[error("unknown argument {0:?}")]
    Unknown(String),
    /// An argument without its value, or with one of the wrong form.
    #[error("argument {0} needs a value of another form")]
    Value(&'static str),
    /// A required argument is missing.
    #[error("argument {0} is missing")]
    Missing(&'static str),
    /// The log configuration is wrong.
    #[error("log configuration")]
    Log(#[from] wharf_logs::LogError),
}

impl wharf_error::HasKind for ArgsError {
    fn kind(&self) -> wharf_error::Kind {
        wharf_error::Kind::Invalid
    }
}

impl Args {
    /// Parses the arguments after the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, ArgsError> {
        let mut args = args.into_iter();
        let (mut id, mut task_dir, mut driver) = (None, None, "json-file".to_owned());
        let (mut options, mut attrs) = (Vec::new(), std::collections::BTreeMap::new());
        let (mut netns_fd, mut hold_fds, mut relays) = (None, Vec::new(), Vec::new());
        let (mut runtime, mut runtime_args) = (None, Vec::new());
        let (mut namespace, mut events, mut socket) = (None, PathBuf::new(), PathBuf::new());
        while let Some(name) = args.next() {
            let name = name.to_str().ok_or_else(|| ArgsError::Unknown(name.to_string_lossy().into_owned()))?;
            let mut value = |name| args.next().and_then(|v| v.into_string().ok()).ok_or(ArgsError::Value(name));
            let pair = |name, text: String| {
                text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or(ArgsError::Value(name))
            };
            match name {
                "--id" => id = Some(value("--id")?),
                "--task-dir" => task_dir = Some(PathBuf::from(value("--task-dir")?)),
                "--log" => driver = value("--log")?,
                "--log-opt" => options.push(pair("--log-opt", value("--log-opt")?)?),
                "--log-attr" => attrs.extend([pair("--log-attr", value("--log-attr")?)?]),
                "--netns-fd" => {
                    netns_fd = Some(descriptor(&value("--netns-fd")?).ok_or(ArgsError::Value("--netns-fd"))?);
                }
                "--hold-fds" => {
                    hold_fds = range(&value("--hold-fds")?).ok_or(ArgsError::Value("--hold-fds"))?;
                }
                "--runtime" => runtime = Some(value("--runtime")?),
                "--runtime-arg" => runtime_args.push(value("--runtime-arg")?),
                "--containerd-namespace" => namespace = Some(value("--containerd-namespace")?),
                "--containerd-events" => events = PathBuf::from(value("--containerd-events")?),
                "--containerd-socket" => socket = PathBuf::from(value("--containerd-socket")?),
                "--relay" => relays.push(relay(&value("--relay")?).ok_or(ArgsError::Value("--relay"))?),
                other => return Err(ArgsError::Unknown(other.to_owned())),
            }
        }
        let mut log = Config::parse(&driver, options.iter().map(|(k, v)| (k.as_str(), v.as_str())))?;
        log.attrs = attrs;
        let id = id.ok_or(ArgsError::Missing("--id"))?;
        let task_dir = task_dir.ok_or(ArgsError::Missing("--task-dir"))?;
        let containerd = namespace.map(|namespace| Containerd { namespace, events, socket });
        let runtime = runtime.map(|path| Runtime { path, args: runtime_args });
        Ok(Args { id, task_dir, log, netns_fd, hold_fds, relays, runtime, containerd })
    }
}

/// Numbers 0 to 4 have a fixed meaning and cannot be given away.
fn descriptor(text: &str) -> Option<i32> {
    text.parse().ok().filter(|n| (5..1 << 20).contains(n))
}

fn range(text: &str) -> Option<Vec<i32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (descriptor(first)?, descriptor(last)?);
    (first <= last && last - first < 65_536).then(|| (first..=last).collect())
}

fn relay(text: &str) -> Option<RelayArg> {
    let (fd, to) = text.split_once(',')?;
    Some(RelayArg { fd: descriptor(fd.strip_prefix("fd=")?)?, to: to.strip_prefix("to=")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, ArgsError> {
        Args::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn a_whole_command_line_parses() {
        let args = parse(&[
            "--id",
            "c",
            "--task-dir",
            "/t",
            "--log",
            "local",
            "--log-opt",
            "max-size=1m",
            "--log-attr",
            "k=a=b",
            "--netns-fd",
            "5",
            "--hold-fds",
            "6-8",
            "--relay",
            "fd=9,to=172.17.0.2:80",
            "--runtime",
            "/usr/bin/crun",
            "--runtime-arg",
            "--debug",
        ])
        .expect("valid");
        assert_eq!((args.netns_fd, args.hold_fds.as_slice()), (Some(5), [6, 7, 8].as_slice()));
        assert_eq!(args.runtime, Some(Runtime { path: "/usr/bin/crun".to_owned(), args: vec!["--debug".to_owned()] }));
        assert_eq!(args.log.max_size, Some(1_000_000));
        assert_eq!(args.log.attrs["k"], "a=b");
        assert_eq!(args.relays[0], RelayArg { fd: 9, to: ([172, 17, 0, 2], 80).into() });
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for wrong in [
            &["--id", "c"][..],
            &["--id", "c", "--task-dir"],
            &["--id", "c", "--task-dir", "/t", "--hold-fds", "3-4"],
            &["--id", "c", "--task-dir", "/t", "--hold-fds", "9-6"],
            &["--id", "c", "--task-dir", "/t", "--netns-fd", "x"],
            &["--id", "c", "--task-dir", "/t", "--relay", "fd=7,to=here"],
            &["--id", "c", "--task-dir", "/t", "--log", "nope"],
            &["--what"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
