//! `wharf-shim`: the supervisor of one container. Started by dockerd only; see ARCHITECTURE.md, "dockerd → shim".

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = wharf_shim::Args::parse(std::env::args_os().skip(1));
    match args.map_err(wharf_shim::Failed::from).and_then(wharf_shim::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("wharf-shim: {}", wharf_error::Chain(&e));
            ExitCode::FAILURE
        }
    }
}
