//! A body of unknown length on its way to the daemon.

use std::fs::File;
use std::io::{self, Write};

use crate::connection::Connection;

/// Bytes that are gathered before they are sent.
const GATHER: usize = 256 << 10;
/// Room in front of them for the chunk's size.
const HEAD: usize = 18;

/// Sends what is written as chunks of a request's body.
pub struct Chunks<'a> {
    connection: &'a mut Connection,
    /// A chunk with room for its head in front.
    chunk: Vec<u8>,
    count: u64,
    /// How the connection failed, if it did.
    pub(crate) failed: Option<io::ErrorKind>,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(connection: &'a mut Connection) -> Self {
        Self { connection, chunk: vec![0; HEAD], count: 0, failed: None }
    }

    /// How many bytes of the body were written.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn send(&mut self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|e| self.failed = Some(e.kind()))
    }

    /// Sends the last, empty chunk.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        let result = self.connection.write_all(b"0\r\n\r\n");
        self.send(result)
    }

    /// Sends bytes of a file from where it stands. The kernel passes its pages on; nothing of them comes through here.
    ///
    /// # Errors
    /// Those of reading and sending; `UnexpectedEof` where the file is shorter.
    pub fn file(&mut self, file: &File, size: u64) -> io::Result<()> {
        self.flush()?;
        let mut left = size;
        while left > 0 {
            // A chunk that has begun must be filled, so a file that shrinks now ends the request.
            let most = left.min(CHUNK_OF_FILE);
            let head = self.connection.write_all(format!("{most:x}\r\n").as_bytes());
            self.send(head)?;
            let mut inside = most;
            while inside > 0 {
                match self.connection.send_file(file, inside) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => inside -= n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return self.send(Err(e)),
                }
            }
            let tail = self.connection.write_all(b"\r\n");
            self.send(tail)?;
            left -= most;
            self.count += most;
        }
        Ok(())
    }
}

/// Bytes of a file in one chunk.
const CHUNK_OF_FILE: u64 = 16 << 20;

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(HEAD + GATHER - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..n]);
        self.count += n as u64;
        if self.chunk.len() == HEAD + GATHER {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        let size = self.chunk.len() - HEAD;
        if size == 0 {
            return Ok(());
        }
        let head = format!("{size:x}\r\n");
        let from = HEAD - head.len();
        self.chunk[from..HEAD].copy_from_slice(head.as_bytes());
        self.chunk.extend_from_slice(b"\r\n");
        let result = self.connection.write_all(&self.chunk[from..]);
        self.chunk.truncate(HEAD);
        self.send(result)
    }
}
