//! Streams of progress: one JSON object after another, printed line by line.

use std::io::{BufReader, Read};

use wharf_api_types::Progress;

use crate::exit::Exit;
use crate::shell::Shell;

/// Prints a stream of progress to standard output, or to standard error where `errors`. Bars are left out.
///
/// # Errors
/// The error that the stream ends with, if it ends with one.
pub fn show(shell: &Shell, source: &mut impl Read, errors: bool) -> Result<(), Exit> {
    each(source, |p| {
        let text = line(&p);
        if errors {
            eprint!("{text}");
            Ok(())
        } else {
            shell.print(&text)
        }
    })
}

/// Reads a stream of progress without printing it.
///
/// # Errors
/// As [`show`].
pub fn drain(source: &mut impl Read) -> Result<(), Exit> {
    each(source, |_| Ok(()))
}

fn each(source: &mut impl Read, mut take: impl FnMut(Progress) -> Result<(), Exit>) -> Result<(), Exit> {
    let stream = serde_json::Deserializer::from_reader(BufReader::new(source)).into_iter::<Progress>();
    for progress in stream {
        let progress = progress.map_err(|e| Exit::new(e.to_string()))?;
        if let Some(e) = &progress.error_detail {
            return Err(Exit::new(e.message.clone()));
        }
        if !progress.error.is_empty() {
            return Err(Exit::new(progress.error));
        }
        take(progress)?;
    }
    Ok(())
}

fn line(p: &Progress) -> String {
    if p.progress_detail.as_ref().is_some_and(|d| d.current > 0) || p.aux.is_some() {
        return String::new();
    }
    if !p.stream.is_empty() {
        return p.stream.clone();
    }
    if p.id.is_empty() { format!("{}\n", p.status) } else { format!("{}: {}\n", p.id, p.status) }
}
