//! Further processes in a running container.

use crate::go::{Pair, empty};

bodies! {
    /// The body of `POST /containers/{id}/exec`.
    pub struct ExecCreateRequest {
        user: String,
        privileged: bool,
        tty: bool,
        /// Height and width.
        console_size: Option<Pair>,
        attach_stdin: bool,
        attach_stderr: bool,
        attach_stdout: bool,
        detach_keys: String,
        env: Option<Vec<String>>,
        working_dir: String,
        cmd: Option<Vec<String>>,
    }

    /// The body of `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        detach: bool,
        tty: bool,
        /// Height and width; only with a terminal.
        #[serde(skip_serializing_if = "empty")]
        console_size: Option<Pair>,
    }

    /// The answer of `GET /exec/{id}/json`.
    pub struct ExecInspect {
        #[serde(rename = "ID")]
        id: String,
        running: bool,
        /// `null` until the process has ended.
        exit_code: Option<i64>,
        process_config: ProcessConfig,
        open_stdin: bool,
        open_stderr: bool,
        open_stdout: bool,
        can_remove: bool,
        #[serde(rename = "ContainerID")]
        container_id: String,
        /// Docker prints the configured sequence's bytes in base64; empty by default.
        detach_keys: String,
        pid: i64,
    }

    /// The process of an exec.
    pub struct ProcessConfig as "camelCase" {
        tty: bool,
        entrypoint: String,
        arguments: Vec<String>,
        privileged: Option<bool>,
        #[serde(skip_serializing_if = "empty")]
        user: String,
    }
}
