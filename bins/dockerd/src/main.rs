//! dockerd: reads the configuration, claims the folders, joins engine and API server, and runs until a signal.

mod authorization;
mod backends;
mod collection;
mod config;
mod daemon;
mod flags;
mod log;
mod notify;
mod remap;
mod root;
mod runtimes;
mod settings;

use std::process::ExitCode;

use wharf_error::Chain;

use crate::settings::{Settings, SettingsError};

/// dockerd's exit code for a wrong command line.
const USAGE: u8 = 125;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let settings = match Settings::read(&arguments) {
        Ok(settings) => settings,
        Err(e) => return refuse(&e),
    };
    if settings.switch("help") {
        print!("{}", flags::help());
        return ExitCode::SUCCESS;
    }
    if settings.switch("version") {
        println!("Docker version {}, build {}", config::VERSION, config::GIT_COMMIT);
        return ExitCode::SUCCESS;
    }
    let idle = match settings.check_effects().and_then(|idle| daemon::check(&settings).map(|()| idle)) {
        Ok(idle) => idle,
        Err(e) => return refuse(&e),
    };
    if settings.switch("validate") {
        println!("configuration OK");
        return ExitCode::SUCCESS;
    }
    let form = if settings.text("log-format") == "json" { log::Form::Json } else { log::Form::Text };
    let level = log::start(form, log::level(&settings));
    for flag in idle {
        tracing::warn!("--{flag} has no effect in Wharf");
    }
    if let Some(from) = settings.given("import-from") {
        return match daemon::import(&settings, std::path::Path::new(from)) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => {
                eprintln!("failed to import from {from}: {}", Chain(&*e));
                ExitCode::FAILURE
            }
        };
    }
    match daemon::run(&settings, &arguments, level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failed to start daemon: {}", Chain(&*e));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &SettingsError) -> ExitCode {
    if error.is_usage() {
        eprintln!("Status: {error}\nSee 'dockerd --help'., Code: {USAGE}");
        return ExitCode::from(USAGE);
    }
    eprintln!("{error}");
    ExitCode::FAILURE
}
