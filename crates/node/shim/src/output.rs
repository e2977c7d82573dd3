//! Output: from the process's pipes or terminal to the spool and to attached clients.

use rustix::io::Errno;
use wharf_logs::{Rotations, Stream};
use wharf_types::Timestamp;

use crate::fifo::Sink;
use crate::process::{PIPE, Process};
use crate::records::report;
use crate::supervisor::{INIT, Supervisor};

/// Bytes read from a pipe at once.
const CHUNK: usize = 64 * 1024;

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Bytes(usize),
    Nothing,
    End,
}

impl Supervisor {
    /// Takes one chunk, unless it has to wait for a client or for the spool.
    pub(crate) fn pump(&mut self, number: u32, stream: Stream) {
        if self.must_wait(number, stream) {
            self.pause_output(number, stream);
            return;
        }
        if self.transfer(number, stream) == Got::End {
            self.close_output(number, stream);
            self.check_drained(number);
        }
    }

    /// Takes all that a process can have left in its pipes, whoever has to wait: it is over. Bounded by the pipe's size, because
    /// others may go on writing.
    pub(crate) fn drain(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = PIPE + CHUNK;
            loop {
                match self.transfer(number, stream) {
                    Got::Bytes(n) if n < left => left -= n,
                    Got::Bytes(_) | Got::Nothing => break,
                    Got::End => {
                        self.close_output(number, stream);
                        break;
                    }
                }
            }
        }
    }

    fn transfer(&mut self, number: u32, stream: Stream) -> Got {
        let Some(output) = self.processes.get_mut(&number).and_then(|p| p.output(stream).as_mut()) else {
            return Got::Nothing;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let got = match rustix::io::read(&output.fd, &mut buffer) {
            Ok(0) => Got::End,
            Ok(n) => Got::Bytes(n),
            Err(Errno::AGAIN | Errno::INTR) => Got::Nothing,
            // A terminal whose last user is gone.
            Err(Errno::IO) => Got::End,
            Err(e) => {
                report(&format_args!("reading output: {e}"));
                Got::End
            }
        };
        if let Got::Bytes(n) = got {
            self.spread(number, stream, &buffer[..n]);
        }
        self.buffer = buffer;
        got
    }

    fn spread(&mut self, number: u32, stream: Stream, bytes: &[u8]) {
        if number == INIT {
            let allowed = self.rotations();
            if let Some(writer) = &mut self.spool {
                let lost = writer.lost();
                if let Err(e) = writer.write(stream, bytes, Timestamp::now(), allowed)
                    && lost == 0
                {
                    // Said once: a full disk would otherwise fill more of it.
                    report(&wharf_error::Chain(&e));
                }
            }
            self.start_compression();
        }
        self.pour(number, bytes);
        self.broadcast(number, stream, bytes);
    }

    /// Whether the next chunk has no place to go.
    fn must_wait(&self, number: u32, stream: Stream) -> bool {
        let sink = self.processes.get(&number).and_then(|p| p.held.sink.as_ref());
        if sink.is_some_and(Sink::is_full) {
            return true;
        }
        match self.spool.as_ref().filter(|_| number == INIT) {
            None => self.is_held(number, stream),
            Some(writer) => writer.is_full() && (writer.is_compressing() || self.rotations() == Rotations::None),
        }
    }

    fn pause_output(&mut self, number: u32, stream: Stream) {
        let Some(output) = self.processes.get_mut(&number).and_then(|p| p.output(stream).as_mut()) else { return };
        // Taken out of the set altogether: a hang-up would be reported whatever is asked for.
        if !output.paused {
            output.paused = true;
            self.poll.remove(&output.fd);
        }
    }

    /// Looks again whether paused outputs of a process may go on.
    pub(crate) fn resume_outputs(&mut self, number: u32) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let paused = |p: &mut Process| p.output(stream).as_ref().is_some_and(|o| o.paused);
            if !self.processes.get_mut(&number).is_some_and(paused) || self.must_wait(number, stream) {
                continue;
            }
            if let Some(output) = self.processes.get_mut(&number).and_then(|p| p.output(stream).as_mut()) {
                output.paused = false;
            }
            self.watch_output(number, stream);
        }
    }

    pub(crate) fn close_output(&mut self, number: u32, stream: Stream) {
        let Some(output) = self.processes.get_mut(&number).and_then(|p| p.output(stream).take()) else { return };
        if !output.paused {
            self.poll.remove(&output.fd);
        }
    }

    /// Compresses a rotated file in a child, so that output goes on meanwhile.
    fn start_compression(&mut self) {
        let Some(compression) = self.spool.as_mut().and_then(wharf_logs::Writer::take_compression) else { return };
        match wharf_sys::clone::clone3(0, None) {
            Ok(wharf_sys::clone::Cloned::Child) => {
                let status = match compression.run() {
                    Ok(()) => 0,
                    Err(e) => {
                        report(&wharf_error::Chain(&e));
                        1
                    }
                };
                wharf_sys::clone::exit_now(status)
            }
            Ok(wharf_sys::clone::Cloned::Parent { pid, .. }) => self.compressor = Some(pid),
            Err(e) => {
                report(&format_args!("compressing the log: {e}"));
                self.end_compression();
            }
        }
    }

    pub(crate) fn end_compression(&mut self) {
        self.compressor = None;
        if let Some(writer) = &mut self.spool {
            writer.compressed();
        }
        self.resume_outputs(INIT);
    }
}
