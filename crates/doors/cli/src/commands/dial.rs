//! `docker system dial-stdio`: joins our standard streams to a connection to the daemon, for ssh.

use std::io::{Read, Write};

use wharf_api_client::Connection;

use crate::exit::Exit;
use crate::parse::Matches;
use crate::shell::Shell;
use crate::stream;

/// `docker system dial-stdio`.
pub fn stdio(shell: &mut Shell, _: &Matches) -> Result<(), Exit> {
    let host = shell.client()?.host().clone();
    let connection = Connection::open(&host)?;
    let mut output = connection.try_clone()?;
    let mut input = connection;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut stdin = std::io::stdin().lock();
        // The other direction ends the command; here an end or an error only ends the sending.
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            if input.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        let _ = input.close_write();
    });
    stream::copy(&mut output, true)
}
