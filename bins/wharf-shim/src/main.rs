//! `wharf-shim`: the supervisor of one container. Started by dockerd (ARCHITECTURE.md, "dockerd → shim"), or by a real
//! containerd under the name `containerd-shim-wharf-v2`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use wharf_shim::Failed;

fn supervise(mut words: Vec<OsString>) -> Result<(), Failed> {
    if words.first().is_some_and(|word| word == "--spare") {
        match wharf_shim::wait_as_spare()? {
            Some(given) => words = given,
            None => return Ok(()),
        }
    }
    wharf_shim::run(wharf_shim::Args::parse(words)?)
}

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().map(PathBuf::from).unwrap_or_default();
    let words: Vec<_> = words.collect();
    // The server that containerd's door starts has its name, too, and our own arguments.
    let door = wharf_shim::is_named_by_containerd(&program) && words.first().is_none_or(|word| word != "--id");
    match if door { wharf_shim::answer_containerd(words) } else { supervise(words) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("wharf-shim: {}", wharf_error::Chain(&e));
            ExitCode::FAILURE
        }
    }
}
