//! How a command ends when it does not end well: what is said on standard error, and the exit status.

use std::io;

/// The text for standard error, without the last line's end, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What is said; nothing if empty.
    pub message: String,
    /// The exit status.
    pub code: u8,
}

impl Exit {
    /// Ends with status 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// Ends with a status, silently.
    pub fn silent(code: u8) -> Self {
        Self { message: String::new(), code }
    }

    /// Puts words in front of the message.
    #[must_use]
    pub fn context(mut self, words: &str) -> Self {
        self.message.insert_str(0, words);
        self
    }
}

impl From<wharf_api_client::Error> for Exit {
    fn from(e: wharf_api_client::Error) -> Self {
        Self::new(e.to_string())
    }
}

impl From<wharf_api_client::HostError> for Exit {
    fn from(e: wharf_api_client::HostError) -> Self {
        Self::new(format!("Failed to initialize: unable to resolve docker endpoint: {e}"))
    }
}

/// An error of writing to standard output. A reader that went away ends us as SIGPIPE would, without a word.
impl From<io::Error> for Exit {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(141);
        }
        Self::new(go_text(&e))
    }
}

/// Returns an error of the system as Go words it: `no such file or directory`.
pub fn go_text(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match (e.raw_os_error(), chars.next()) {
        (Some(_), Some(c)) => c.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// Returns an error on a file as Go words it: `open /x: no such file or directory`.
pub fn path_error(operation: &str, path: &str, e: &io::Error) -> Exit {
    Exit::new(format!("{operation} {path}: {}", go_text(e)))
}
