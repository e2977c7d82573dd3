//! Repository checks and developer tasks. `cargo xtask tidy` runs under the test command.

use std::process::ExitCode;

mod edges;
mod licences;
mod sources;
mod workspace;

const USAGE: &str = "usage: cargo xtask tidy    check crate edges, headers, licences and sources";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy(),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> ExitCode {
    let workspace = match workspace::Workspace::read() {
        Ok(workspace) => workspace,
        Err(e) => {
            eprintln!("tidy: {e}");
            return ExitCode::from(2);
        }
    };
    let mut findings = edges::check(&workspace);
    findings.extend(licences::check(&workspace));
    findings.extend(sources::check(&workspace));
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    println!("tidy: {} crates, {} packages, {} findings", workspace.members.len(), workspace.packages, findings.len());
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
