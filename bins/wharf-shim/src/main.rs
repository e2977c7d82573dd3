//! `wharf-shim`: the supervisor of one container. Started by dockerd only; see ARCHITECTURE.md, "dockerd → shim".

use std::ffi::OsString;
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
    match supervise(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("wharf-shim: {}", wharf_error::Chain(&e));
            ExitCode::FAILURE
        }
    }
}
