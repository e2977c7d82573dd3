//! Request and answer bodies as the synchronous parts of the engine read and write them.

use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use wharf_api_server::ApiError;
use wharf_api_server::backend::{Incoming, Outgoing};
use wharf_error::HasKind;

/// A request's body as a reader. Only for threads that may block.
pub struct BodyReader {
    chunks: Incoming,
    rest: Bytes,
}

impl BodyReader {
    /// Reads what the client sends.
    pub fn new(chunks: Incoming) -> Self {
        Self { chunks, rest: Bytes::new() }
    }
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(e)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, e.message)),
                None => break,
            }
        }
        Ok(&self.rest)
    }

    fn consume(&mut self, n: usize) {
        self.rest.advance(n);
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

/// An answer's body as a writer, in chunks that are worth a system call. Only for threads that may block.
pub struct BodyWriter {
    chunks: mpsc::Sender<Result<Bytes, ApiError>>,
    buffer: Vec<u8>,
}

/// Bytes that are sent at once.
const CHUNK: usize = 256 << 10;

impl BodyWriter {
    /// Writes to a client.
    pub fn new(chunks: mpsc::Sender<Result<Bytes, ApiError>>) -> Self {
        Self { chunks, buffer: Vec::with_capacity(CHUNK) }
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        // The receiver goes when the client does.
        self.chunks.blocking_send(Ok(full.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Sends what `work` writes, on a thread that may block; its error ends the body.
pub fn send<E: HasKind>(work: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send + 'static) -> Outgoing<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut writer = BodyWriter::new(sender.clone());
        match work(&mut writer) {
            // A client that left is no fault of ours.
            Ok(()) => drop(writer.flush()),
            Err(e) => drop(sender.blocking_send(Err(ApiError::of(&e)))),
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_broken_body_is_an_error() {
        let (sender, receiver) = mpsc::channel(64);
        let mut writer = BodyWriter::new(sender.clone());
        let data: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        writer.write_all(&data).and_then(|()| writer.flush()).expect("written");
        sender.blocking_send(Err(ApiError::invalid("cut off"))).expect("sent");
        let mut reader = BodyReader::new(receiver);
        let mut read = vec![0; data.len()];
        reader.read_exact(&mut read).expect("read");
        assert_eq!(read, data);
        assert_eq!(reader.read(&mut [0]).expect_err("broken").to_string(), "cut off");
    }

    #[test]
    fn a_client_that_left_ends_the_writing() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut writer = BodyWriter::new(sender);
        writer.write_all(&[0; 10]).expect("buffered");
        assert_eq!(writer.flush().expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
