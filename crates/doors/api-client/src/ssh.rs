//! A daemon behind ssh: `docker system dial-stdio` on the other machine, joined to a socket pair, as Docker's client
//! does it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// Where to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// User, or ssh's own choice.
    pub user: Option<String>,
    /// Host.
    pub host: String,
    /// Port, or ssh's own choice.
    pub port: Option<u16>,
    /// The daemon's socket there, or the other client's default.
    pub path: String,
}

impl Login {
    /// Reads what follows `ssh://`: `[user@]host[:port][/path]`.
    pub fn parse(text: &str) -> Option<Login> {
        let (place, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        let (user, place) = place.rsplit_once('@').map_or((None, place), |(u, p)| (Some(u), p));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (place, None),
        };
        let host = host.trim_matches(['[', ']']);
        // A name that begins with a dash would be taken for an option (CVE-2017-1000117).
        let bad = |word: &str| word.is_empty() || word.starts_with('-');
        // A password in the address is refused: it would stand in the list of processes.
        if bad(host) || user.is_some_and(|u| bad(u) || u.contains(':')) {
            return None;
        }
        let path = if path == "/" { "" } else { path };
        Some(Login { user: user.map(str::to_owned), host: host.to_owned(), port, path: path.to_owned() })
    }

    /// The words of the command.
    pub(crate) fn command(&self) -> Vec<String> {
        let mut words: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].iter().map(|w| (*w).to_owned()).collect();
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if !self.path.is_empty() {
            words.push(format!("--host=unix://{}", self.path));
        }
        words.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        words
    }

    /// Starts ssh; it ends with the connection. What it says goes to standard error.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let input = OwnedFd::from(theirs.try_clone()?);
        let mut command = Command::new("ssh");
        command.args(self.command()).stdin(Stdio::from(input)).stdout(Stdio::from(OwnedFd::from(theirs)));
        let mut child = command.spawn()?;
        std::thread::Builder::new().name("ssh".to_owned()).spawn(move || {
            // Its end is the connection's end, which is seen there.
            let _ = child.wait();
        })?;
        Ok(ours)
    }
}

#[cfg(test)]
mod tests {
    use super::Login;

    #[test]
    fn addresses_are_read_and_options_in_disguise_are_refused() {
        let login = Login::parse("me@host:2222/run/docker.sock").expect("an address");
        let words =
            "-o ConnectTimeout=30 -T -l me -p 2222 -- host docker --host=unix:///run/docker.sock system dial-stdio";
        assert_eq!(login.command().join(" "), words);
        assert_eq!(
            Login::parse("host").expect("an address").command().join(" "),
            "-o ConnectTimeout=30 -T -- host docker system dial-stdio"
        );
        assert_eq!(Login::parse("[::1]:22").expect("an address").host, "::1");
        for text in ["", "-oProxyCommand=x", "-l@host", "me:secret@host", "host:port", "@host"] {
            assert_eq!(Login::parse(text), None, "{text}");
        }
    }
}
