//! `wharf-runtime`: the OCI runtime as a command, argument-compatible with runc.

mod args;
mod checkpoint;
mod commands;
mod error;
mod events;
mod exec;
mod features;
mod flags;
mod listing;
mod log;
mod stats;
mod store;
mod supervise;
mod template;
mod update;

use std::process::ExitCode;

use args::Invocation;
use error::Error;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let invocation = match args::parse(&words) {
        Ok(invocation) => invocation,
        Err(wrong) => {
            if let Some(command) = wrong.of {
                eprintln!("Incorrect Usage.\n\n{}", flags::help(Some(command)));
            }
            log::report(&wrong.log, "", &wrong.error);
            return ExitCode::from(if matches!(wrong.error, Error::NoCommand(_)) { 3 } else { 1 });
        }
    };
    match run(&invocation) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            let (before, code) = invocation.command.map_or(("", 1), |c| (c.failure, c.code));
            log::report(&invocation.log, before, &e);
            ExitCode::from(code)
        }
    }
}

fn run(invocation: &Invocation) -> Result<u8, Error> {
    if invocation.enters_container() {
        protect()?;
    }
    commands::run(invocation)
}

/// Executes this program anew from a file that cannot be written through `/proc/<pid>/exe` (CVE-2019-5736), unless it
/// runs from one.
fn protect() -> Result<(), Error> {
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStringExt;
    if wharf_runtime::weaken::is_dropped("image") || wharf_sys::image::is_protected().map_err(Error::Protect)? {
        return Ok(());
    }
    let file = wharf_sys::image::open_protected(c"/proc/self/exe").map_err(Error::Protect)?;
    let nul = |e: std::ffi::NulError| Error::Protect(e.into());
    let args = wharf_sys::exec::Strings::new(std::env::args_os().map(OsStringExt::into_vec)).map_err(nul)?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        entry
    });
    let env = wharf_sys::exec::Strings::new(env).map_err(nul)?;
    Err(Error::Protect(wharf_sys::exec::fexecve(file.as_fd(), &args, &env)))
}
