//! systemd's readiness protocol (sd_notify(3)): one datagram to the socket named by `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells systemd a state such as `READY=1` or `STOPPING=1`. Without systemd nothing happens.
pub fn tell(state: &str) {
    if let Some(name) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(e) = send(&name, state)
    {
        tracing::warn!("notifying systemd of {state}: {e}");
    }
}

fn send(socket: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_reaches_the_named_socket() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        send(path.as_os_str(), "READY=1").expect("sent");
        let mut bytes = [0; 16];
        let n = socket.recv(&mut bytes).expect("received");
        assert_eq!(&bytes[..n], b"READY=1");
    }
}
