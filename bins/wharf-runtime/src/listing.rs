//! `list` and `ps`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use wharf_oci::runtime::Status;

use crate::args::Invocation;
use crate::commands::print;
use crate::error::Error;
use crate::store::{self, Record};

/// `list`.
pub fn list(i: &Invocation) -> Result<u8, Error> {
    let mut rows = Vec::new();
    for id in store::ids(&i.root)? {
        match store::open(&i.root, &id) {
            Ok((folder, record)) => rows.push((folder.status(&record)?, folder.owner(), record)),
            // Being made or removed just now.
            Err(Error::NoSuchContainer) => {}
            Err(e) => return Err(e),
        }
    }
    if i.is_set("quiet") {
        return print(&rows.iter().map(|(_, _, r)| format!("{}\n", r.id)).collect::<String>());
    }
    match i.value("format") {
        Some("json") => {
            let states: Vec<Value> = rows.iter().map(|(status, owner, r)| state(r, *status, owner)).collect();
            print(&format!("{}\n", Value::Array(states)))
        }
        None | Some("table") => {
            let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            for (status, owner, r) in rows {
                let pid = if status == Status::Stopped { 0 } else { r.pid };
                let bundle = r.bundle.display().to_string();
                let row = [r.id, pid.to_string(), status.as_str().to_owned(), bundle, r.created.to_string(), owner];
                table.push(row);
            }
            print(&columns(&table))
        }
        Some(_) => Err(Error::Usage("invalid format option".to_owned())),
    }
}

/// The state as `state` and `list` print it: the specification's, with runc's additions.
pub fn state(record: &Record, status: Status, owner: &str) -> Value {
    let state = record.state(status);
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": state.pid,
        "status": status.as_str(),
        "bundle": state.bundle,
        "rootfs": record.config.root.as_ref().map(|r| record.bundle.join(&r.path)),
        "created": record.created.to_string(),
        "owner": owner,
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value
}

/// Lines up columns: twelve characters at least, with one space between, as runc's.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|r| r[at].chars().count() + 1).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `ps`: as JSON the process ids, otherwise the lines that the host's ps(1) has about them.
pub fn ps(i: &Invocation) -> Result<u8, Error> {
    let json = match i.value("format") {
        Some("json") => true,
        None | Some("table") => false,
        Some(_) => return Err(Error::Usage("invalid format option".to_owned())),
    };
    let (_, record) = store::open(&i.root, i.id())?;
    let pids = record.pids()?;
    if json {
        return print(&format!("{}\n", json!(pids)));
    }
    let words = if i.words.len() > 1 { i.words[1..].to_vec() } else { vec!["-ef".to_owned()] };
    // The host's own program: what is in the container is never run outside of it (CVE-2022-1227).
    let ran = Command::new("ps").args(&words).env("PATH", "/usr/bin:/bin").output();
    let ran = ran.map_err(|source| Error::File { what: "run", path: Path::new("ps").to_owned(), source })?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(Error::State(format!("ps: {}: {}", ran.status, said.lines().next().unwrap_or_default())));
    }
    print(&select(&text, &pids)?)
}

/// The heading and the lines whose column `PID` is one of these.
fn select(text: &str, pids: &[i32]) -> Result<String, Error> {
    let (head, rest) = text.split_once('\n').unwrap_or((text, ""));
    let at = head.split_whitespace().position(|word| word == "PID");
    let at = at.ok_or_else(|| Error::State("couldn't find PID field in ps output".to_owned()))?;
    let mut chosen = format!("{head}\n");
    for line in rest.lines() {
        let pid = line.split_whitespace().nth(at).and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            chosen.push_str(line);
            chosen.push('\n');
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_containers_processes_are_shown() {
        let text = "UID        PID  PPID CMD\nroot         7     1 sleep 8\nroot         8     1 7\n";
        assert_eq!(select(text, &[7]).expect("found"), "UID        PID  PPID CMD\nroot         7     1 sleep 8\n");
        assert!(select("COMMAND\n", &[7]).is_err());
    }

    #[test]
    fn columns_are_twelve_wide_or_more() {
        let rows = [["ID", "PID"].map(str::to_owned), ["a-long-identifier", "1"].map(str::to_owned)];
        assert_eq!(columns(&rows), "ID                PID\na-long-identifier 1\n");
    }
}
