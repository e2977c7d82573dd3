//! Telling what failed: on standard error, and in the file that `--log` names, which containerd and dockerd read.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use wharf_error::Chain;
use wharf_types::Timestamp;

use crate::error::Error;

/// Where and how.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// A file to append to, besides standard error.
    pub file: Option<PathBuf>,
    /// JSON objects instead of text lines in the file.
    pub json: bool,
}

/// Reports an error; `before` is what the command's failures begin with. Without a file the line goes to standard error as
/// it would to the file, otherwise the bare message does (as runc, whose callers read either).
pub fn report(target: &Target, before: &str, error: &Error) {
    let message = format!("{before}{}", without_numbers(&Chain(error).to_string()));
    let line = line(target.json, &message);
    // There is nowhere left to report that reporting failed.
    let _ = match &target.file {
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
            writeln!(std::io::stderr(), "{message}")
        }
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// Takes out the ` (os error 2)` that Rust's library puts behind the kernel's errors: callers compare with runc's texts.
fn without_numbers(message: &str) -> String {
    let mut rest = message;
    let mut text = String::with_capacity(message.len());
    while let Some((before, after)) = rest.split_once(" (os error ") {
        let Some((number, behind)) = after.split_once(')') else { break };
        text.push_str(before);
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            text.push_str(&format!(" (os error {number})"));
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}

fn line(json: bool, message: &str) -> String {
    let time = Timestamp::now();
    if json {
        let value = serde_json::json!({"level": "error", "msg": message, "time": time.to_string()});
        return format!("{value}\n");
    }
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(line, "time={:?} level=error msg={message:?}", time.to_string());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_not_shown() {
        assert_eq!(without_numbers("read x: No such file (os error 2)"), "read x: No such file");
        assert_eq!(without_numbers("a (os error 2): b (os error x) (os error "), "a: b (os error x) (os error ");
    }

    #[test]
    fn a_json_line_holds_level_and_message() {
        let line = line(true, "a \"b\"");
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("error"), Some("a \"b\"")));
    }
}
