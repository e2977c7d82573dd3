//! The frames in which output and errors share one stream (moby's stdcopy), and writing them out.

use std::io::{self, Read, Write};

use crate::exit::Exit;

/// Takes frames apart and writes them to the two standard streams.
///
/// Small frames are gathered; [`Splitter::flush`] writes them, which the caller does before it waits for more.
#[derive(Default)]
pub struct Splitter {
    header: [u8; 8],
    have: usize,
    left: usize,
    stream: u8,
    message: Vec<u8>,
    gathered: Vec<u8>,
    to_errors: bool,
}

/// Gathered output beyond this is written at once.
const GATHER: usize = 64 << 10;

impl Splitter {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// For a frame of no known kind, an error sent by the daemon, and those of writing.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Exit> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.put(&bytes[..n])?;
                self.left -= n;
                bytes = &bytes[n..];
                if self.left == 0 && self.stream == 3 {
                    self.flush()?;
                    let text = String::from_utf8_lossy(&self.message).into_owned();
                    return Err(Exit::new(format!("error from daemon in stream: {text}")));
                }
                continue;
            }
            let n = (8 - self.have).min(bytes.len());
            self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == 8 {
                self.have = 0;
                let h = self.header;
                self.stream = h[0];
                self.left = u32::from_be_bytes([h[4], h[5], h[6], h[7]]) as usize;
                if self.stream > 3 {
                    return Err(Exit::new(format!("Unrecognized stream: {}", self.stream)));
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Exit> {
        if self.stream == 3 {
            // Bounded: more of a message than this helps nobody.
            let room = 4096usize.saturating_sub(self.message.len()).min(bytes.len());
            self.message.extend_from_slice(&bytes[..room]);
            return Ok(());
        }
        let errors = self.stream == 2;
        if errors != self.to_errors {
            self.flush()?;
            self.to_errors = errors;
        }
        if bytes.len() >= GATHER {
            self.flush()?;
            return write(errors, bytes);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER { self.flush() } else { Ok(()) }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// Those of writing.
    pub fn flush(&mut self) -> Result<(), Exit> {
        if !self.gathered.is_empty() {
            write(self.to_errors, &self.gathered)?;
            self.gathered.clear();
        }
        Ok(())
    }
}

/// Writes to standard output or standard error, unbuffered.
///
/// # Errors
/// That of write(2).
pub fn write(errors: bool, mut bytes: &[u8]) -> Result<(), Exit> {
    while !bytes.is_empty() {
        let n = if errors {
            rustix::io::write(rustix::stdio::stderr(), bytes)
        } else {
            rustix::io::write(rustix::stdio::stdout(), bytes)
        };
        match n {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(std::io::Error::from(e).into()),
        }
    }
    Ok(())
}

/// Copies an answer to the standard streams as it comes: frames taken apart, or raw where the container has a terminal.
///
/// # Errors
/// Those of reading and writing.
pub fn copy(source: &mut impl Read, raw: bool) -> Result<(), Exit> {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        if raw {
            write(false, &buffer[..n])?;
        } else {
            splitter.feed(&buffer[..n])?;
            splitter.flush()?;
        }
    }
}

/// Copies an answer to a writer.
///
/// # Errors
/// Those of reading and writing.
pub fn copy_to(source: &mut impl Read, target: &mut impl Write) -> Result<(), Exit> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        target.write_all(&buffer[..n])?;
    }
}

/// The data of an archive's present entry as a stream.
pub struct EntryData<'a, 'b>(pub &'a mut wharf_archive::Reader<'b>);

impl Read for EntryData<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.0.data().map_err(io::Error::other)?;
        let n = ready.len().min(buf.len());
        buf[..n].copy_from_slice(&ready[..n]);
        self.0.consume(n);
        Ok(n)
    }
}
