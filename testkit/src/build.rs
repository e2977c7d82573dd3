//! Builds by every way that there is on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Cli, Daemon, Outcome};

/// Runs a build with these arguments, the word `build` among them.
pub type Build<'a> = &'a dyn Fn(&[&str]) -> Outcome;

/// A folder that a build takes as its context.
///
/// # Panics
/// When it cannot be written.
pub fn context(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    folder
}

/// The path of such a folder as an argument.
///
/// # Panics
/// When it is no text.
pub fn path(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().expect("text")
}

/// Docker's build plugin, where it is installed.
pub fn buildx() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("WHARF_BUILDX") {
        return Some(PathBuf::from(path));
    }
    let places =
        ["/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/local/lib/docker/cli-plugins"];
    places.iter().map(|p| Path::new(p).join("docker-buildx")).find(|p| p.exists())
}

/// A command of the build plugin against a daemon; `None`, and a word about it, where there is none.
pub fn buildx_command(daemon: &Daemon, arguments: &[&str]) -> Option<Command> {
    let Some(plugin) = buildx() else {
        println!("SKIP buildx: not installed");
        return None;
    };
    let mut command = Command::new(plugin);
    let config = daemon.folder().join("buildx");
    command.args(arguments);
    command.env("DOCKER_HOST", daemon.host()).env("DOCKER_CONFIG", &config).env("BUILDX_CONFIG", &config);
    command.env_remove("DOCKER_CONTEXT").env_remove("BUILDX_BUILDER").stdin(std::process::Stdio::null());
    Some(command)
}

/// Runs a build by each way: the classic door by every client, sessions by ours and by buildx.
pub fn each_way(test: impl Fn(&Daemon, &str, Build<'_>)) {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        let run = |arguments: &[&str]| {
            let mut command = daemon.client(cli, arguments);
            command.env("DOCKER_BUILDKIT", "0");
            crate::run(command)
        };
        test(&daemon, "classic", &run);
    }
    by_session(&daemon, &test);
}

/// As [`each_way`], without the classic door.
pub fn each_session(test: impl Fn(&Daemon, &str, Build<'_>)) {
    by_session(&Daemon::with_image(), &test);
}

fn by_session(daemon: &Daemon, test: &dyn Fn(&Daemon, &str, Build<'_>)) {
    test(daemon, "ours", &|arguments| crate::run(daemon.client(Cli::Ours, arguments)));
    if buildx_command(daemon, &[]).is_none() {
        return;
    }
    let run = |arguments: &[&str]| {
        let quiet = arguments.contains(&"-q");
        let mut words = vec!["build", if quiet { "--progress=quiet" } else { "--progress=plain" }];
        words.extend(arguments.iter().copied().filter(|a| *a != "build"));
        crate::run(buildx_command(daemon, &words).expect("it is there"))
    };
    test(daemon, "buildx", &run);
}
