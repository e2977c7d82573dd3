//! syslog: RFC 3164, RFC 5424 and the local form, over udp, tcp, TLS and unix sockets (moby `daemon/logger/syslog`).

use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use wharf_logs::{Message, Remote, Stream, facility};

use crate::forwarder::Sink;
use crate::net::{Lazy, Place, TlsOptions, tls};
use crate::{ForwardError, Info, host_name, line};

/// Where local daemons listen.
const LOCAL: &[&str] = &["/dev/log", "/var/run/syslog", "/var/run/log"];

/// How a message is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As to a local daemon: no host.
    Unix,
    Rfc3164,
    Rfc5424 {
        micro: bool,
    },
}

enum Way {
    Stream(Lazy),
    Udp { to: String, socket: Option<UdpSocket> },
    Datagrams { paths: Vec<PathBuf>, socket: Option<UnixDatagram> },
}

/// A syslog daemon.
pub(crate) struct Syslog {
    way: Way,
    form: Form,
    facility: u8,
    tag: String,
    host: String,
    /// RFC 5425: each message with its length, over TLS in the forms of RFC 5424.
    counted: bool,
}

impl Syslog {
    pub(crate) fn new(remote: &Remote, info: &Info) -> Result<Syslog, ForwardError> {
        let address = remote.get("syslog-address");
        let (scheme, rest) = address.split_once("://").unwrap_or(("", ""));
        let host = || if rest.rsplit_once(':').is_some() { rest.to_owned() } else { format!("{rest}:514") };
        let way = match scheme {
            "udp" => Way::Udp { to: host(), socket: None },
            "tcp" => Way::Stream(Lazy::new(Place::Tcp(host()))),
            "tcp+tls" => {
                let options = TlsOptions {
                    roots: remote.get("syslog-tls-ca-cert"),
                    certificate: remote.get("syslog-tls-cert"),
                    key: remote.get("syslog-tls-key"),
                    skip_verify: remote.switch("syslog-tls-skip-verify"),
                    name: "",
                };
                Way::Stream(Lazy::new(tls(&host(), options)?))
            }
            "unix" => Way::Stream(Lazy::new(Place::Unix(rest.into()))),
            "unixgram" => Way::Datagrams { paths: vec![rest.into()], socket: None },
            _ => Way::Datagrams { paths: LOCAL.iter().map(PathBuf::from).collect(), socket: None },
        };
        let form = match remote.get("syslog-format") {
            "rfc3164" => Form::Rfc3164,
            "rfc5424" => Form::Rfc5424 { micro: false },
            "rfc5424micro" => Form::Rfc5424 { micro: true },
            _ => Form::Unix,
        };
        let counted = scheme == "tcp+tls" && matches!(form, Form::Rfc5424 { .. });
        // Options were checked when the container was created.
        let facility = facility(remote.get("syslog-facility")).unwrap_or(24);
        Ok(Syslog { way, form, facility, tag: info.tag.clone(), host: host_name(), counted })
    }

    fn lay_out(&self, message: &Message) -> Vec<u8> {
        let severity = if message.stream == Stream::Stderr { 3 } else { 6 };
        let priority = self.facility | severity;
        let pid = std::process::id();
        let nanos = message.time.unix_nanos();
        let at = jiff::Timestamp::from_nanosecond(nanos).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let at = at.to_zoned(jiff::tz::TimeZone::system());
        let (host, tag) = (&self.host, &self.tag);
        let stamp = || at.strftime("%b %e %H:%M:%S");
        let mut text = match self.form {
            Form::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp()),
            Form::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp()),
            Form::Rfc5424 { micro } => {
                let time = at.strftime(if micro { "%Y-%m-%dT%H:%M:%S.%6f%:z" } else { "%Y-%m-%dT%H:%M:%S%:z" });
                let time = time.to_string().replace("+00:00", "Z");
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ")
            }
        }
        .into_bytes();
        text.extend_from_slice(line(&message.bytes));
        text.push(b'\n');
        if self.counted {
            let mut counted = format!("{} ", text.len()).into_bytes();
            counted.append(&mut text);
            return counted;
        }
        text
    }
}

impl Sink for Syslog {
    fn deliver(&mut self, messages: &[Message]) -> io::Result<()> {
        let all: Vec<Vec<u8>> = messages.iter().map(|m| self.lay_out(m)).collect();
        match &mut self.way {
            Way::Stream(stream) => stream.with(|s| s.write_all(&all.concat()).and_then(|()| s.flush())),
            Way::Udp { to, socket } => {
                if socket.is_none() {
                    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                    let fresh = UdpSocket::bind(any)?;
                    fresh.connect(to.as_str())?;
                    *socket = Some(fresh);
                }
                let Some(connected) = socket else { return Err(io::ErrorKind::NotConnected.into()) };
                let sent = all.iter().try_for_each(|m| connected.send(m).map(drop));
                if sent.is_err() {
                    *socket = None;
                }
                sent
            }
            Way::Datagrams { paths, socket } => {
                if socket.is_none() {
                    let fresh = UnixDatagram::unbound()?;
                    fresh.set_write_timeout(Some(crate::net::PATIENCE))?;
                    let mut connected = Err(io::ErrorKind::NotFound.into());
                    for path in paths {
                        connected = fresh.connect(path);
                        if connected.is_ok() {
                            break;
                        }
                    }
                    connected?;
                    *socket = Some(fresh);
                }
                let Some(connected) = socket else { return Err(io::ErrorKind::NotConnected.into()) };
                let sent = all.iter().try_for_each(|m| connected.send(m).map(drop));
                if sent.is_err() {
                    *socket = None;
                }
                sent
            }
        }
    }

    fn confirms(&self) -> bool {
        !matches!(self.way, Way::Stream(_))
    }

    fn check(&mut self) -> io::Result<()> {
        match &mut self.way {
            Way::Stream(stream) => stream.check(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wharf_logs::{Place as LogPlace, Position, RemoteKind};
    use wharf_types::Timestamp;

    use super::*;

    fn message(stream: Stream) -> Message {
        let next = LogPlace { position: Position { inode: 1, offset: 1 }, first: String::new() };
        Message { stream, time: Timestamp::from_unix(1_000_000_000, 123_456_789), bytes: b"hello\n".to_vec(), next }
    }

    fn laid_out(address: &str, form: &str, stream: Stream) -> String {
        let options = [("syslog-address", address), ("syslog-format", form), ("syslog-facility", "local0")];
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let remote = Remote { kind: RemoteKind::Syslog, options };
        let mut syslog = Syslog::new(&remote, &Info { tag: "t".into(), ..Info::default() }).expect("valid");
        syslog.host = "h".into();
        let text = String::from_utf8(syslog.lay_out(&message(stream))).expect("text");
        text.replace(&std::process::id().to_string(), "PID")
    }

    #[test]
    fn messages_have_the_forms_of_docker() {
        let udp = "udp://127.0.0.1:514";
        let plain = laid_out(udp, "", Stream::Stdout);
        assert!(plain.starts_with("<134>Sep ") && plain.ends_with(" t[PID]: hello\n"), "{plain}");
        let old = laid_out(udp, "rfc3164", Stream::Stderr);
        assert!(old.starts_with("<131>Sep ") && old.ends_with(" h t[PID]: hello\n"), "{old}");
        let new = laid_out(udp, "rfc5424", Stream::Stdout);
        assert!(new.starts_with("<134>1 2001-09-") && new.ends_with(" h t PID t - hello\n"), "{new}");
        let micro = laid_out(udp, "rfc5424micro", Stream::Stdout);
        assert!(micro.contains(".123456"), "{micro}");
    }
}
