//! Plugins of our own, by Docker's protocol, as threads of the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

/// Answers one call: its method and body.
pub type Answer = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// Serves a plugin on `<folder>/<name>.sock` until the test's process ends.
///
/// # Panics
/// When the socket cannot be made.
pub fn serve(folder: &Path, name: &str, answer: Arc<Answer>) {
    std::fs::create_dir_all(folder).expect("made");
    let listener = UnixListener::bind(folder.join(format!("{name}.sock"))).expect("bound");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || one(connection, &*answer));
        }
    });
}

fn one(connection: UnixStream, answer: &Answer) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let method = first.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let body = answer(&method, &serde_json::from_slice(&body).unwrap_or_default()).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all((head + &body).as_bytes()).ok()
}
