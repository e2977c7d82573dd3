//! journald's native protocol (systemd.io, "Native Journal Protocol"): one datagram a message.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use wharf_logs::{Message, Stream};

use crate::forwarder::Sink;
use crate::{ForwardError, Info, line};

/// Where the journal listens.
pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal.
pub(crate) struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// The fields of every message, laid out.
    fixed: Vec<u8>,
    /// Tells the messages of this forwarder from those of another run (moby's `CONTAINER_LOG_EPOCH`).
    ordinal: u64,
}

/// A field, with its length where the value could hold a newline.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A name as the journal takes it: capital letters, digits and underscores, not beginning with one of the latter two.
fn journal_name(name: &str) -> String {
    let upper: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    upper.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit()).to_owned()
}

impl Journal {
    pub(crate) fn new(info: &Info, path: &Path) -> Result<Journal, ForwardError> {
        if !path.exists() {
            return Err(ForwardError::NoJournal);
        }
        let mut fixed = Vec::new();
        let fields = [
            ("CONTAINER_ID", info.short_id()),
            ("CONTAINER_ID_FULL", &info.id),
            ("CONTAINER_NAME", &info.name),
            ("CONTAINER_TAG", &info.tag),
            ("IMAGE_NAME", &info.image_name),
            ("SYSLOG_IDENTIFIER", &info.tag),
        ];
        fields.iter().for_each(|(name, value)| field(&mut fixed, name, value.as_bytes()));
        for (key, value) in &info.extra {
            let name = journal_name(key);
            if !name.is_empty() {
                field(&mut fixed, &name, value.as_bytes());
            }
        }
        Ok(Journal { path: path.to_owned(), socket: None, fixed, ordinal: 0 })
    }

    fn lay_out(&mut self, message: &Message) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.fixed.len() + message.bytes.len() + 160);
        let partial = !message.bytes.ends_with(b"\n");
        field(&mut out, "MESSAGE", line(&message.bytes));
        field(&mut out, "PRIORITY", if message.stream == Stream::Stderr { b"3" } else { b"6" });
        field(&mut out, "SYSLOG_TIMESTAMP", message.time.to_string().as_bytes());
        self.ordinal += 1;
        field(&mut out, "CONTAINER_LOG_ORDINAL", self.ordinal.to_string().as_bytes());
        if partial {
            field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        out.extend_from_slice(&self.fixed);
        out
    }
}

impl Sink for Journal {
    fn deliver(&mut self, messages: &[Message]) -> io::Result<()> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(crate::net::PATIENCE))?;
            socket.connect(&self.path)?;
            self.socket = Some(socket);
        }
        for message in messages {
            let datagram = self.lay_out(message);
            let sent = self.socket.as_ref().map_or(Err(io::ErrorKind::NotConnected.into()), |s| s.send(&datagram));
            if let Err(e) = sent {
                self.socket = None;
                return Err(e);
            }
        }
        Ok(())
    }

    fn confirms(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use wharf_logs::{Place, Position};
    use wharf_types::Timestamp;

    use super::*;

    #[test]
    fn messages_come_as_fields_and_newlines_inside_are_counted() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("journal");
        let receiver = UnixDatagram::bind(&path).expect("bound");
        let extra = [("com.x".to_owned(), "a\nb".to_owned()), ("__".to_owned(), "no".to_owned())].into();
        let info = Info { id: "0123456789abcdef".into(), name: "n".into(), tag: "t".into(), extra, ..Info::default() };
        let mut journal = Journal::new(&info, &path).expect("there is one");
        let next = Place { position: Position { inode: 1, offset: 1 }, first: String::new() };
        let time = Timestamp::from_unix(1, 0);
        let message = Message { stream: Stream::Stderr, time, bytes: b"hi\n".to_vec(), next };
        journal.deliver(&[message]).expect("delivered");
        let mut buffer = [0; 4096];
        let n = receiver.recv(&mut buffer).expect("received");
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        for part in ["MESSAGE=hi\n", "PRIORITY=3\n", "CONTAINER_ID=0123456789ab\n", "CONTAINER_TAG=t\n"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("COM_X\n\u{3}\0\0\0\0\0\0\0a\nb\n"), "{text:?}");
        assert!(!text.contains("=no\n"));
        assert!(matches!(Journal::new(&info, Path::new("/nosuch")), Err(ForwardError::NoJournal)));
    }
}
