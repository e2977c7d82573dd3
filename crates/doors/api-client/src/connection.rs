//! One connection to a daemon, with what was read ahead of its use.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;

use crate::error::Error;
use crate::host::Host;
use crate::message::{Head, MAX_HEAD};

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connected socket and the bytes that were read but not yet used.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
    used: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Connect`] or [`Error::Permission`].
    pub fn open(host: &Host) -> Result<Self, Error> {
        let socket = match host {
            Host::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
            Host::Tcp(address) => TcpStream::connect(address).map(|s| {
                // Small requests must not wait for each other; a socket that cannot say so still works.
                let _ = s.set_nodelay(true);
                Socket::Tcp(s)
            }),
            Host::Tls(address, tls) => tls.connect(address).map(Socket::Unix),
            Host::Ssh(login) => login.connect().map(Socket::Unix),
        };
        match socket {
            Ok(socket) => Ok(Self { socket, buffer: Vec::new(), used: 0 }),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::Permission { host: host.clone(), source })
            }
            Err(source) => Err(Error::Connect { host: host.clone(), source }),
        }
    }

    /// Returns the bytes that were read ahead.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Switches between blocking and non-blocking reads and writes.
    ///
    /// # Errors
    /// That of fcntl(2).
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(s) => s.set_nonblocking(on),
            Socket::Tcp(s) => s.set_nonblocking(on),
        }
    }

    /// Opens a second handle on the same socket; what was read ahead stays with this one.
    ///
    /// # Errors
    /// That of dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            Socket::Unix(s) => Socket::Unix(s.try_clone()?),
            Socket::Tcp(s) => Socket::Tcp(s.try_clone()?),
        };
        Ok(Self { socket, buffer: Vec::new(), used: 0 })
    }

    /// Gives the socket away, and the bytes that were read ahead.
    pub fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        let ahead = self.buffered().to_vec();
        match self.socket {
            Socket::Unix(s) => (s.into(), ahead),
            Socket::Tcp(s) => (s.into(), ahead),
        }
    }

    /// Ends our direction; the daemon takes it as the end of standard input.
    ///
    /// # Errors
    /// That of shutdown(2).
    pub fn close_write(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
        }
    }

    /// Sends bytes of a file from where it stands, some of them at least.
    pub(crate) fn send_file(&mut self, mut file: &File, most: u64) -> io::Result<u64> {
        match rustix::fs::sendfile(self.as_fd(), file, None, usize::try_from(most).unwrap_or(usize::MAX)) {
            // Some file systems cannot give their pages away.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let mut piece = vec![0; most.min(64 << 10) as usize];
                let n = file.read(&mut piece)?;
                self.write_all(&piece[..n])?;
                Ok(n as u64)
            }
            sent => Ok(sent? as u64),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        let old = self.buffer.len();
        self.buffer.resize(old + 16384, 0);
        let n = read_socket(&mut self.socket, &mut self.buffer[old..]);
        self.buffer.truncate(old + n.as_ref().copied().unwrap_or(0));
        n
    }

    /// Reads up to the empty line; `None` where the connection ended before its first byte.
    pub(crate) fn read_head(&mut self) -> Result<Option<Head>, Error> {
        let mut searched = 0;
        loop {
            let bytes = &self.buffer[self.used..];
            let from = searched.min(bytes.len());
            if let Some(at) = bytes[from..].windows(4).position(|w| w == b"\r\n\r\n") {
                let end = from + at;
                let head = Head::parse(&bytes[..end]).ok_or_else(|| Error::Answer("malformed head".into()))?;
                self.used += end + 4;
                return Ok(Some(head));
            }
            if bytes.len() > MAX_HEAD {
                return Err(Error::Answer("head too long".into()));
            }
            searched = bytes.len().saturating_sub(3);
            match self.fill() {
                Ok(0) if self.buffered().is_empty() => return Ok(None),
                Ok(0) => return Err(Error::Answer("connection closed within the head".into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset && self.buffered().is_empty() => return Ok(None),
                Err(source) => return Err(Error::Transfer { operation: "reading the answer", source }),
            }
        }
    }

    /// Reads one line of a chunked body, without its end.
    pub(crate) fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let bytes = self.buffered();
            if let Some(at) = bytes.iter().position(|b| *b == b'\n') {
                let line = bytes[..at].strip_suffix(b"\r").unwrap_or(&bytes[..at]).to_vec();
                self.used += at + 1;
                return Ok(line);
            }
            if bytes.len() > 4096 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "chunk size line too long"));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn read_socket(socket: &mut Socket, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        let n = match socket {
            Socket::Unix(s) => s.read(buf),
            Socket::Tcp(s) => s.read(buf),
        };
        match n {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            n => return n,
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.buffered();
        if ready.is_empty() {
            return read_socket(&mut self.socket, buf);
        }
        let n = ready.len().min(buf.len());
        buf[..n].copy_from_slice(&ready[..n]);
        self.used += n;
        Ok(n)
    }
}

impl Write for Connection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Unix(s) => s.write(buf),
            Socket::Tcp(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(s) => s.as_fd(),
            Socket::Tcp(s) => s.as_fd(),
        }
    }
}
