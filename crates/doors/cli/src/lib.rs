//! The `docker` command line: flag table, commands, tables, formats.
//!
//! [`run`] takes the words of a command line and returns the exit status. The words are read against [`table`] by
//! [`parse`]; what a command sends and prints is in [`commands`]. Texts and statuses are those of docker 28.2.2 wherever
//! people or scripts may depend on them; help texts are our own.
//!
//! Weaker than docker 28.2.2, on purpose or for now: commands whose feature is not there say so
//! ([`table::Action::Later`]); templates over a whole struct leave out fields that JSON omits; contexts are not read from
//! zip archives; `stats` prints one reading a second. `run -d` does not wait for the container, `exec` does not inspect
//! it, and no command but `build` asks `/_ping`: each saves a round trip.

pub mod commands;
pub mod config;
pub mod create;
pub mod credentials;
pub mod exit;
pub mod format;
pub mod help;
pub mod man;
pub mod parse;
pub mod platform;
pub mod plugins;
pub mod reference;
pub mod session;
pub mod shape;
pub mod shell;
pub mod signals;
pub mod stream;
pub mod table;
pub mod terminal;
pub mod value;

use exit::Exit;
use parse::Request;
use shell::Shell;
use table::Action;

/// The product's name, beside the version.
pub const PRODUCT: &str = "Wharf";
/// The Docker release whose behaviour is matched, with our own version.
pub const VERSION: &str = concat!("28.5.2+wharf.", env!("CARGO_PKG_VERSION"));
/// The source revision, where the build knows it.
pub const COMMIT: &str = match option_env!("WHARF_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The time of the build, where the build knows it.
pub const BUILT: &str = match option_env!("WHARF_BUILT") {
    Some(time) => time,
    None => "unknown",
};
/// What stands in the place of Go's version.
pub const COMPILER: &str = concat!("none (rust ", env!("CARGO_PKG_RUST_VERSION"), ")");

/// Runs a command line, given without the program's name, and returns the exit status.
pub fn run(words: &[String]) -> u8 {
    match execute(words) {
        Ok(()) => 0,
        Err(Exit { message, code }) => {
            if !message.is_empty() {
                eprintln!("{message}");
            }
            code
        }
    }
}

fn execute(words: &[String]) -> Result<(), Exit> {
    if let Some((first, rest)) = words.split_first()
        && matches!(first.as_str(), "__complete" | "__completeNoDesc")
    {
        return commands::completion::complete(rest, first == "__complete");
    }
    if let [first, folder] = words
        && first == "__man"
    {
        return man::write(std::path::Path::new(folder));
    }
    if let Some((globals, word)) = parse::stranger(words) {
        // It does not come back if there is such a plugin.
        plugins::become_plugin(&Shell::new(&globals)?, &word, words)?;
    }
    match parse::parse(words)? {
        Request::Help(command, note) => {
            eprint!("{note}");
            print(&help::help(command))
        }
        Request::Lost(command) => {
            eprint!("{}", help::help(command));
            Ok(())
        }
        Request::Version => print(&format!("Docker version {VERSION}, build {COMMIT}\n")),
        Request::Run(globals, matches) => {
            let mut shell = Shell::new(&globals)?;
            match matches.command.action {
                Action::Run(command) => {
                    let done = command(&mut shell, &matches);
                    plugins::hooks(&shell, &matches, done.as_ref().err());
                    done
                }
                Action::Later(feature) => {
                    let name = matches.command.full_name();
                    commands::refused(&shell, &name)?;
                    Err(Exit::new(format!(
                        "{name}: not available yet: {feature} will come with a later release of {PRODUCT}"
                    )))
                }
                // The parser hands out no group.
                Action::Group => Ok(()),
            }
        }
    }
}

fn print(text: &str) -> Result<(), Exit> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests;
