//! As much of D-Bus as talking to systemd's manager and to firewalld takes: a unix socket, method calls, answers, signals.
//!
//! Source: D-Bus Specification 0.43, "Message Protocol" and "Authentication Protocol".

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A message longer than this is none of theirs.
const LONGEST: usize = 1 << 20;

/// Appends values in D-Bus's little-endian form.
#[derive(Debug, Default)]
pub struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A number.
    pub fn u32(&mut self, n: u32) -> &mut Self {
        self.align(4);
        self.bytes.extend(n.to_le_bytes());
        self
    }

    /// A number.
    pub fn u64(&mut self, n: u64) -> &mut Self {
        self.align(8);
        self.bytes.extend(n.to_le_bytes());
        self
    }

    /// A truth value.
    pub fn bool(&mut self, on: bool) -> &mut Self {
        self.u32(u32::from(on))
    }

    /// A text, or an object's path.
    pub fn string(&mut self, text: &str) -> &mut Self {
        // No text of ours reaches 4 GiB.
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self
    }

    /// A signature.
    pub fn signature(&mut self, text: &str) -> &mut Self {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self
    }

    /// An array whose elements are aligned to `to`.
    pub fn array(&mut self, to: usize, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let length = self.bytes.len() - 4;
        self.align(to);
        let start = self.bytes.len();
        fill(self);
        let filled = (self.bytes.len() - start) as u32;
        self.bytes[length..length + 4].copy_from_slice(&filled.to_le_bytes());
        self
    }

    /// The beginning of a structure, or of an entry of a map.
    pub fn structure(&mut self) -> &mut Self {
        self.align(8);
        self
    }

    /// A byte.
    pub fn byte(&mut self, n: u8) -> &mut Self {
        self.bytes.push(n);
        self
    }
}

/// A message that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// 1 call, 2 answer, 3 error, 4 signal.
    pub kind: u8,
    /// The serial that it answers.
    pub answers: u32,
    /// The method or signal.
    pub member: String,
    /// Of an error: its name.
    pub error: String,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The first value, if it is a number or a truth value.
    pub fn number(&self) -> Option<u32> {
        let first = self.signature.chars().next();
        first.filter(|kind| matches!(kind, 'u' | 'b')).and_then(|_| Reader { bytes: &self.body, at: 0 }.u32())
    }

    /// The strings and object paths at the beginning of the body, numbers before them passed over.
    pub fn strings(&self) -> Vec<String> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut out = Vec::new();
        for kind in self.signature.chars() {
            let read = match kind {
                's' | 'o' => reader.string().map(|text| out.push(text)),
                'u' | 'i' => reader.u32().map(drop),
                _ => None,
            };
            if read.is_none() {
                break;
            }
        }
        out
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(n)?;
        let found = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(found)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }
}

/// Reads one whole message: `header` without its length of fields, those fields, and the body.
fn parse(kind: u8, fields: &[u8], body: Vec<u8>) -> Option<Message> {
    let mut message = Message { kind, body, ..Message::default() };
    let mut reader = Reader { bytes: fields, at: 0 };
    while reader.at < fields.len() {
        reader.align(8);
        if reader.at >= fields.len() {
            break;
        }
        let code = reader.byte()?;
        let signature = reader.signature()?;
        match signature.as_str() {
            "s" | "o" => {
                let text = reader.string()?;
                match code {
                    3 => message.member = text,
                    4 => message.error = text,
                    _ => {}
                }
            }
            "g" => {
                let text = reader.signature()?;
                if code == 8 {
                    message.signature = text;
                }
            }
            "u" => {
                let number = reader.u32()?;
                if code == 5 {
                    message.answers = number;
                }
            }
            _ => return None,
        }
    }
    Some(message)
}

/// A connection that has said who we are.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was awaited.
    signals: Vec<Message>,
}

/// What one method call is about.
pub struct Call<'a> {
    /// Whose.
    pub destination: &'a str,
    /// Of which object.
    pub path: &'a str,
    /// Of which interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// The types of its arguments.
    pub signature: &'a str,
}

/// A call to the bus itself.
fn bus<'a>(member: &'a str, signature: &'a str) -> Call<'a> {
    let name = "org.freedesktop.DBus";
    Call { destination: name, path: "/org/freedesktop/DBus", interface: name, member, signature }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Connection {
    /// Connects and authenticates by the socket's credentials (`EXTERNAL`).
    pub fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        // All at once, as systemd's own clients do. Its server takes no notice of a call that it reads together with a BEGIN
        // until more comes (seen with systemd 252): so BEGIN must be there before the first call can be, and that is sure once
        // this is answered.
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 4096 {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus does not take our credentials"));
        }
        Ok(Self { stream, serial: 0, signals: Vec::new() })
    }

    /// On a bus: takes a name, which comes before everything else.
    pub fn introduce(&mut self) -> io::Result<()> {
        self.call(&bus("Hello", ""), &Body::default()).map(drop)
    }

    /// On a bus: asks for the signals that a rule describes.
    pub fn subscribe(&mut self, rule: &str) -> io::Result<()> {
        let mut body = Body::default();
        body.string(rule);
        self.call(&bus("AddMatch", "s"), &body).map(drop)
    }

    /// On a bus: the process that has a name; none if nobody has it.
    pub fn process_of(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut body = Body::default();
        body.string(name);
        let owned = self.call(&bus("NameHasOwner", "s"), &body)?;
        if owned.number() != Some(1) {
            return Ok(None);
        }
        Ok(self.call(&bus("GetConnectionUnixProcessID", "s"), &body)?.number())
    }

    /// Signals that came while answers were awaited.
    pub fn take_signals(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.signals)
    }

    /// Calls a method and returns its answer.
    ///
    /// Errors: what came back as error, named as D-Bus names it.
    pub fn call(&mut self, call: &Call<'_>, body: &Body) -> io::Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&encode(call, body, serial))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                4 => self.signals.push(message),
                2 if message.answers == serial => return Ok(message),
                3 if message.answers == serial => {
                    let said = message.strings().into_iter().next().unwrap_or_default();
                    return Err(io::Error::other(format!("{}: {said}", message.error)));
                }
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` takes.
    pub fn signal<T>(&mut self, deadline: Instant, wanted: impl Fn(&Message) -> Option<T>) -> io::Result<T> {
        if let Some(found) = self.signals.iter().find_map(&wanted) {
            return Ok(found);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let message = self.receive()?;
            if message.kind == 4
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }

    /// Reads the next message, whatever it is. Blocks until there is one, within the patience.
    pub fn receive(&mut self) -> io::Result<Message> {
        let mut head = [0u8; 16];
        self.stream.read_exact(&mut head)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        if head[0] != b'l' || body > LONGEST || fields > LONGEST {
            return Err(broken("a D-Bus message in a form that is not expected"));
        }
        let mut rest = vec![0u8; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest)?;
        let content = rest.split_off(fields.next_multiple_of(8));
        // Fields are aligned as the whole message is; the fixed part before them has sixteen bytes.
        parse(head[1], &rest[..fields], content).ok_or_else(|| broken("a D-Bus message that cannot be read"))
    }
}

fn encode(call: &Call<'_>, body: &Body, serial: u32) -> Vec<u8> {
    let mut message = Body::default();
    message.byte(b'l').byte(1).byte(0).byte(1).u32(body.bytes.len() as u32).u32(serial);
    message.array(8, |fields| {
        let texts = [(1, "o", call.path), (2, "s", call.interface), (3, "s", call.member), (6, "s", call.destination)];
        for (code, signature, text) in texts {
            fields.structure().byte(code).signature(signature).string(text);
        }
        if !call.signature.is_empty() {
            fields.structure().byte(8).signature("g").signature(call.signature);
        }
    });
    message.align(8);
    message.bytes.extend(&body.bytes);
    message.bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_is_read_back_as_it_was_written() {
        let mut body = Body::default();
        body.string("name").u32(7);
        let call = Call { destination: "d.e", path: "/a", interface: "i.f", member: "M", signature: "su" };
        let bytes = encode(&call, &body, 3);
        assert_eq!((bytes[0], bytes[1], bytes.len() % 4), (b'l', 1, 0));
        let fields = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let content = bytes[16 + fields.next_multiple_of(8)..].to_vec();
        let message = parse(1, &bytes[16..16 + fields], content).expect("valid");
        assert_eq!((message.member.as_str(), message.strings()), ("M", vec!["name".to_owned()]));
    }

    #[test]
    fn no_call_can_arrive_together_with_the_end_of_the_introduction() {
        let folder = std::env::temp_dir().join(format!("wharf-dbus-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&folder).expect("a socket");
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut heard = Vec::new();
            // It says all before it is answered, or this waits for ever.
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
            while !heard.ends_with(b"BEGIN\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("all comes unasked");
                heard.push(byte[0]);
            }
            client.write_all(b"OK 0123\r\n").expect("answered");
            heard
        });
        let opened = Connection::open(&folder, Duration::from_secs(5));
        let heard = server.join().expect("heard");
        std::fs::remove_file(&folder).expect("removed");
        opened.expect("open");
        assert!(heard.starts_with(b"\0AUTH EXTERNAL "), "{heard:?}");
    }

    proptest! {
        #[test]
        fn any_message_is_survived(kind: u8, fields: Vec<u8>, body: Vec<u8>) {
            if let Some(message) = parse(kind, &fields, body) {
                let _ = message.strings();
            }
        }
    }
}
