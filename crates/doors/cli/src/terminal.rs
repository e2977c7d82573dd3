//! The terminal we run in: raw mode, size, detach keys.

use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios};

use crate::exit::{Exit, go_text};

/// Whether standard input is a terminal.
pub fn stdin_is() -> bool {
    termios::isatty(rustix::stdio::stdin())
}

/// Whether standard output is a terminal.
pub fn stdout_is() -> bool {
    termios::isatty(rustix::stdio::stdout())
}

/// Whether standard error is a terminal.
pub fn stderr_is() -> bool {
    termios::isatty(rustix::stdio::stderr())
}

/// Ends the command where a terminal is asked for and standard input is none.
///
/// # Errors
/// Docker's text.
pub fn check(attach_stdin: bool, tty: bool) -> Result<(), Exit> {
    if attach_stdin && tty && !stdin_is() {
        return Err(Exit::new("the input device is not a TTY"));
    }
    Ok(())
}

/// Returns height and width of the terminal that standard output is; zeros where it is none.
pub fn size() -> [u32; 2] {
    size_of(rustix::stdio::stdout())
}

/// As [`size`], of standard error.
pub fn size_of_stderr() -> [u32; 2] {
    size_of(rustix::stdio::stderr())
}

fn size_of(fd: std::os::fd::BorrowedFd<'_>) -> [u32; 2] {
    match termios::tcgetwinsize(fd) {
        Ok(w) => [u32::from(w.ws_row), u32::from(w.ws_col)],
        Err(_) => [0, 0],
    }
}

/// Raw mode of standard input, until dropped.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Enters raw mode; `None` where standard input is no terminal.
    ///
    /// # Errors
    /// That of tcsetattr(3).
    pub fn enter() -> Result<Option<Self>, Exit> {
        if !stdin_is() {
            return Ok(None);
        }
        let stdin = rustix::stdio::stdin();
        let set = |e: rustix::io::Errno| Exit::new(format!("unable to setup input stream: {}", go_text(&e.into())));
        let before = termios::tcgetattr(stdin.as_fd()).map_err(set)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).map_err(set)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that went away needs no mode.
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The key sequence that detaches, and how much of it was typed.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

/// Docker's default.
pub const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or single characters; nothing means the default.
    ///
    /// # Errors
    /// Docker's text for a key that is none.
    pub fn parse(text: &str) -> Result<Self, Exit> {
        let text = if text.is_empty() { DEFAULT_KEYS } else { text };
        let mut keys = Vec::new();
        for key in text.split(',') {
            let byte = match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([b @ b'a'..=b'z']) => b - b'a' + 1,
                Some([b'@']) => 0,
                Some([b @ b'['..=b'_']) => b - b'[' + 27,
                None if key.len() == 1 => key.as_bytes()[0],
                _ => return Err(Exit::new(format!("Unknown character: '{key}'"))),
            };
            keys.push(byte);
        }
        Ok(Self { keys, typed: 0 })
    }

    /// Takes what was typed and returns what is to be sent; `None` once the sequence is complete.
    ///
    /// Keys of an incomplete sequence are held back until it is known that they are none.
    pub fn filter(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len() + self.typed);
        for b in bytes {
            if self.keys.get(self.typed) == Some(b) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return None;
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.typed]);
            self.typed = 0;
            if self.keys.first() == Some(b) && self.keys.len() > 1 {
                self.typed = 1;
            } else {
                out.push(*b);
            }
        }
        Some(out)
    }
}
