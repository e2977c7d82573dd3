//! Sources: what a reviewer would otherwise have to look for in every change.

use std::fs;

use crate::workspace::Workspace;

/// A file longer than this has a concept in it that has no name yet (CONTRIBUTING.md). Tests count.
const LONGEST_FILE: usize = 1000;

/// Lists findings in tracked files.
pub fn check(workspace: &Workspace) -> Vec<String> {
    let mut findings = crate_headers(workspace);
    for file in &workspace.files {
        let Ok(text) = fs::read_to_string(workspace.root.join(file)) else { continue };
        findings.extend(machine_paths(file, &text));
        if file.ends_with(".rs") {
            findings.extend(rust_file(workspace, file, &text));
        }
    }
    findings
}

/// Every crate says what it is for in its first line and stands on the map.
fn crate_headers(workspace: &Workspace) -> Vec<String> {
    let map = fs::read_to_string(workspace.root.join("ARCHITECTURE.md")).unwrap_or_default();
    let mut findings = Vec::new();
    for (name, member) in &workspace.members {
        let sources = ["src/lib.rs", "src/main.rs"].map(|f| member.folder.join(f));
        let first = sources.iter().find_map(|f| fs::read_to_string(f).ok()).unwrap_or_default();
        if !first.starts_with("//! ") {
            findings.push(format!("{name}: the first line of the crate does not say what it is for (`//! …`)"));
        }
        let short = member.place.rsplit('/').next().unwrap_or(name);
        if !map.contains(&format!("`{short}`")) {
            findings.push(format!("{name}: `{short}` is not on the map in ARCHITECTURE.md"));
        }
    }
    findings
}

fn machine_paths(file: &str, text: &str) -> Vec<String> {
    // Joined here so that this file does not find itself.
    let roots = ["work", "farm"].map(|folder| format!("\"/{folder}/"));
    let found = text.lines().enumerate().filter(|(_, line)| roots.iter().any(|r| line.contains(r)));
    found.map(|(n, _)| format!("{file}:{}: a path of one particular machine", n + 1)).collect()
}

fn rust_file(workspace: &Workspace, file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        findings.push(format!("{file}: {lines} lines; split it by concept (at most {LONGEST_FILE})"));
    }
    let may_be_unsafe = workspace
        .rules
        .may_be_raw
        .iter()
        .any(|place| file.starts_with(&format!("crates/{place}/")) || file.starts_with(&format!("{place}/")));
    for (n, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        let word = |w: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|token| token == w);
        if !may_be_unsafe && word("unsafe") && !code.contains('"') {
            findings.push(format!("{file}:{}: unsafe outside {}", n + 1, workspace.rules.may_be_raw.join(", ")));
        }
        if code.trim_start().starts_with("#[ignore") {
            findings.push(format!("{file}:{}: an ignored test; a skip prints its reason and is counted", n + 1));
        }
    }
    findings
}
