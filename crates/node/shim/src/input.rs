//! stdin: from attached clients to the process, with back pressure.

use rustix::io::Errno;

use crate::poll::{Ready, Token};
use crate::supervisor::Supervisor;

impl Supervisor {
    /// Takes bytes for a process. What its pipe has no room for waits, and so do the clients.
    pub(crate) fn take_input(&mut self, number: u32, bytes: &[u8]) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        // Without a pipe the process closed its stdin, or never had one: as with Docker the bytes are dropped.
        let Some(input) = &mut process.stdin else {
            if process.stdin_open && process.pid == 0 {
                // A terminal comes with Start: until then nothing is read from clients, except what came with the
                // attach request itself.
                process.early.extend_from_slice(bytes);
                self.pause_inputs(number, true);
            }
            return;
        };
        input.pending.extend_from_slice(bytes);
        self.feed(number);
    }

    /// Writes what waits.
    pub(crate) fn feed(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let Some(input) = &mut process.stdin else { return };
        while !input.pending.is_empty() {
            match rustix::io::write(&input.fd, &input.pending) {
                Ok(n) => drop(input.pending.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !input.waiting && self.poll.add(&input.fd, Token::Stdin(number), Ready::OUT).is_ok() {
                        input.waiting = true;
                    }
                    self.pause_inputs(number, true);
                    return;
                }
                // The process closed its end.
                Err(_) => {
                    self.close_stdin_now(number);
                    self.pause_inputs(number, false);
                    return;
                }
            }
        }
        input.pending = Vec::new();
        if input.waiting {
            input.waiting = false;
            self.poll.remove(&input.fd);
        }
        if input.closing {
            self.close_stdin_now(number);
        }
        self.pause_inputs(number, false);
    }

    /// A client ended its input. Returns false if the process's input must stay open all the same.
    pub(crate) fn end_input(&mut self, number: u32) -> bool {
        let Some(process) = self.processes.get(&number) else { return true };
        if !process.stdin_once || process.terminal {
            return false;
        }
        self.close_stdin(number);
        true
    }

    /// Closes stdin once all that was taken is written.
    pub(crate) fn close_stdin(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        if let Some(input) = &mut process.stdin {
            input.closing = true;
            self.feed(number);
        }
    }

    fn close_stdin_now(&mut self, number: u32) {
        if let Some(input) = self.processes.get_mut(&number).and_then(|p| p.stdin.take())
            && input.waiting
        {
            self.poll.remove(&input.fd);
        }
    }

    /// The process has its terminal: what clients sent before goes in.
    pub(crate) fn resume_inputs(&mut self, number: u32) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let early = std::mem::take(&mut process.early);
        if !early.is_empty() {
            self.take_input(number, &early);
        }
        self.pause_inputs(number, false);
    }
}
