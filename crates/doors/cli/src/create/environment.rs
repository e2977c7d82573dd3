//! Variables and labels, from flags and from files.

use crate::exit::{Exit, path_error};

/// Reads variables: those of the files first, then those of the flags. A name alone takes this process's value.
///
/// # Errors
/// Docker's text for files that cannot be read and lines that are none.
pub fn variables(files: &[&str], flags: &[&str]) -> Result<Vec<String>, Exit> {
    let mut all = from_files(files, true)?;
    for text in flags {
        all.push(match (text.contains('='), std::env::var(text)) {
            (false, Ok(value)) => format!("{text}={value}"),
            _ => (*text).to_owned(),
        });
    }
    Ok(all)
}

/// Reads labels: those of the files first, then those of the flags.
///
/// # Errors
/// As [`variables`].
pub fn labels(files: &[&str], flags: &[&str]) -> Result<Vec<String>, Exit> {
    let mut all = from_files(files, false)?;
    all.extend(flags.iter().map(|f| (*f).to_owned()));
    Ok(all)
}

fn from_files(files: &[&str], environment: bool) -> Result<Vec<String>, Exit> {
    let mut all = Vec::new();
    for file in files {
        let bytes = std::fs::read(file).map_err(|e| path_error("open", file, &e))?;
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = if i == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
            let invalid = |why: String| Exit::new(format!("invalid env file ({file}): {why}"));
            let line = std::str::from_utf8(line).map_err(|_| {
                invalid(format!("invalid utf8 bytes at line {}: {:?}", i + 1, String::from_utf8_lossy(line)))
            })?;
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = match line.split_once('=') {
                Some((n, v)) => (n, Some(v)),
                None => (line, None),
            };
            if name.contains([' ', '\t', '\u{b}', '\u{c}', '\r']) {
                return Err(invalid(format!("variable '{name}' contains whitespaces")));
            }
            if name.is_empty() {
                return Err(invalid(format!("no variable name on line '{line}'")));
            }
            match value {
                Some(_) => all.push(line.to_owned()),
                None if environment => {
                    if let Ok(value) = std::env::var(name) {
                        all.push(format!("{name}={value}"));
                    }
                }
                // A label without a value is left out of a file's labels, as Docker does.
                None => {}
            }
        }
    }
    Ok(all)
}
