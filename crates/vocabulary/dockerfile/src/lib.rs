//! The Dockerfile language: lines, heredocs, expansion, instructions and stages, ignore patterns, build checks.
//!
//! ```
//! let file = wharf_dockerfile::Dockerfile::parse(b"FROM scratch AS a\nCOPY x /\n").expect("valid");
//! assert_eq!(file.stages[0].name.as_deref(), Some("a"));
//! ```
//!
//! Sources: the Dockerfile reference (docs.docker.com/reference/dockerfile) and, where it is silent, what
//! `docker build` of Docker 28.5 does. Nothing here does I/O.

mod check;
mod error;
mod excerpt;
mod flags;
pub mod ignore;
mod instruction;
mod line;
mod mount;
mod stage;
mod words;

pub use check::{Checks, Rule, Warning};
pub use error::{DockerfileError, Located};
pub use excerpt::excerpt;
pub use flags::Flags;
pub use instruction::{
    Add, Command, Form, Health, Heredoc, Instruction, KeyValue, Kind, Run, ShellOrExec, SourceFile, parse_instruction,
};
pub use line::{Directives, Line, Range, logical_lines};
pub use mount::{Mount, MountKind, Sharing, parse_mount};
pub use stage::{Dockerfile, Stage};
pub use words::{ExpandError, Expanded, Expander, split_words};
