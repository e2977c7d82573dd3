//! Streams of progress: one JSON object after another, printed line by line, or on a terminal with a line for each
//! layer that is written over.

use std::collections::HashMap;
use std::io::{BufReader, Read};

use wharf_api_types::Progress;

use crate::exit::Exit;
use crate::shell::Shell;
use crate::terminal;

/// Prints a stream of progress to standard output, or to standard error where `errors`.
///
/// # Errors
/// The error that the stream ends with, if it ends with one.
pub fn show(shell: &Shell, source: &mut impl Read, errors: bool) -> Result<(), Exit> {
    show_with(shell, source, errors, &mut |_| {})
}

/// As [`show`], and hands every object to `hear`.
///
/// # Errors
/// As [`show`].
pub fn show_with(
    shell: &Shell,
    source: &mut impl Read,
    errors: bool,
    hear: &mut dyn FnMut(&Progress),
) -> Result<(), Exit> {
    let on_terminal = if errors { terminal::stderr_is() } else { terminal::stdout_is() };
    let mut board = Board::default();
    each(source, |p| {
        hear(&p);
        let text = if on_terminal { board.line(&p, terminal::size()[1]) } else { line(&p) };
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
    drain_with(source, &mut |_| {})
}

/// As [`drain`], and hands every object to `hear`.
///
/// # Errors
/// As [`show`].
pub fn drain_with(source: &mut impl Read, hear: &mut dyn FnMut(&Progress)) -> Result<(), Exit> {
    each(source, |p| {
        hear(&p);
        Ok(())
    })
}

/// Hands on each piece of progress.
///
/// # Errors
/// As [`show`].
pub fn each(source: &mut impl Read, mut take: impl FnMut(Progress) -> Result<(), Exit>) -> Result<(), Exit> {
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

/// Without a terminal, what changes all the time is left out.
fn line(p: &Progress) -> String {
    if p.progress_detail.as_ref().is_some_and(|d| d.current > 0) || p.aux.is_some() {
        return String::new();
    }
    if !p.stream.is_empty() {
        return p.stream.clone();
    }
    if p.id.is_empty() { format!("{}\n", p.status) } else { format!("{}: {}\n", p.id, p.status) }
}

/// Which line of the terminal belongs to which id, counted from the first.
#[derive(Default)]
struct Board {
    places: HashMap<String, usize>,
}

impl Board {
    /// What is to be written for one object: the cursor goes up to its line, writes it anew and comes back.
    fn line(&mut self, p: &Progress, width: u32) -> String {
        if p.aux.is_some() {
            return String::new();
        }
        if !p.stream.is_empty() {
            self.places.clear();
            return p.stream.clone();
        }
        if p.id.is_empty() || p.progress_detail.is_none() {
            // What belongs to no layer stands for itself, and layers after it begin anew.
            self.places.clear();
            return line(p);
        }
        let known = self.places.len();
        let place = *self.places.entry(p.id.clone()).or_insert(known);
        let text = format!("{}: {} {}", p.id, p.status, bar(p, width));
        let text: String = text.trim_end().chars().take(width.max(20) as usize).collect();
        if place == known {
            return format!("\x1b[2K{text}\n");
        }
        let up = known - place;
        format!("\x1b[{up}A\x1b[2K{text}\r\x1b[{up}B")
    }
}

/// Bar and numbers of an object; only the numbers where the terminal is narrow.
fn bar(p: &Progress, width: u32) -> String {
    let Some(detail) = &p.progress_detail else { return String::new() };
    if !detail.units.is_empty() {
        return format!("{} {}", detail.current, detail.units);
    }
    if detail.current <= 0 || detail.hide_counts {
        return String::new();
    }
    let size = |n: i64| crate::format::size::decimal(n as f64);
    if detail.total <= 0 {
        return format!("{:>8}", size(detail.current));
    }
    let numbers = format!("{:>8}/{}", size(detail.current), size(detail.total));
    if width <= 110 {
        return numbers;
    }
    let filled = (detail.current.saturating_mul(50) / detail.total).clamp(0, 50) as usize;
    format!("[{}>{}] {numbers}", "=".repeat(filled), " ".repeat(50 - filled))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_api_types::ProgressDetail;

    fn layer(id: &str, status: &str, current: i64) -> Progress {
        let detail = ProgressDetail { current, total: 100, ..ProgressDetail::default() };
        Progress { id: id.into(), status: status.into(), progress_detail: Some(detail), ..Progress::default() }
    }

    #[test]
    fn a_terminal_has_one_line_for_each_layer() {
        let mut board = Board::default();
        assert_eq!(board.line(&layer("a", "Pulling fs layer", 0), 80), "\x1b[2Ka: Pulling fs layer\n");
        assert_eq!(board.line(&layer("b", "Pulling fs layer", 0), 80), "\x1b[2Kb: Pulling fs layer\n");
        assert_eq!(
            board.line(&layer("a", "Downloading", 50), 80),
            "\x1b[2A\x1b[2Ka: Downloading      50B/100B\r\x1b[2B"
        );
        assert!(
            board
                .line(&layer("b", "Downloading", 50), 200)
                .contains("[=========================>                         ]")
        );
        let end = Progress { status: "Digest: x".into(), ..Progress::default() };
        assert_eq!(board.line(&end, 80), "Digest: x\n");
    }

    #[test]
    fn without_a_terminal_only_changes_of_state_are_told() {
        assert_eq!(line(&layer("a", "Downloading", 50)), "");
        assert_eq!(line(&layer("a", "Pull complete", 0)), "a: Pull complete\n");
    }
}
