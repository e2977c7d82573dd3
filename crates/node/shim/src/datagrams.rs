//! Relays of datagrams: what a bound UDP socket receives goes into the container's network, each client by a socket of
//! its own, so that answers find their way back.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// How long a client that says nothing is remembered, as docker-proxy does.
const QUIET: Duration = Duration::from_secs(90);

/// Clients at a time. A further one displaces the one that has been quiet longest.
const MAX: usize = 1024;

/// Datagrams taken from one socket before the others get their turn.
const BURST: usize = 64;

struct Client {
    socket: OwnedFd,
    last: Instant,
}

/// Relays until no client is left for `idle`, or `parent` is no longer the parent process.
pub(crate) fn serve(
    listener: &OwnedFd,
    to: SocketAddr,
    idle: Duration,
    parent: Option<rustix::process::Pid>,
) -> io::Result<()> {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    let mut idle_since = Instant::now();
    while !clients.is_empty() || idle_since.elapsed() < idle {
        if rustix::process::getppid() != parent {
            return Ok(());
        }
        let ready = wait(listener, &clients)?;
        for _ in 0..BURST {
            let Some((length, from)) = receive(listener, &mut buffer)? else { break };
            idle_since = Instant::now();
            let Some(client) = client_of(&mut clients, from, to) else { continue };
            client.last = idle_since;
            // A datagram that the container does not take is lost, as on any network.
            let _ = rustix::net::send(&client.socket, &buffer[..length], SendFlags::DONTWAIT);
        }
        for address in ready {
            let Some(client) = clients.get_mut(&address) else { continue };
            for _ in 0..BURST {
                // An error (nobody listens in the container) says nothing about the next datagram.
                let Ok((_, length)) = rustix::net::recv(&client.socket, &mut buffer[..], RecvFlags::DONTWAIT) else {
                    break;
                };
                client.last = Instant::now();
                let _ = rustix::net::sendto(listener, &buffer[..length], SendFlags::DONTWAIT, &address);
            }
        }
        clients.retain(|_, client| client.last.elapsed() < QUIET);
    }
    Ok(())
}

fn receive(listener: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    match rustix::net::recvfrom(listener, &mut buffer[..], RecvFlags::DONTWAIT) {
        Ok((_, length, from)) => Ok(from.and_then(|f| SocketAddr::try_from(f).ok()).map(|from| (length, from))),
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn client_of(clients: &mut HashMap<SocketAddr, Client>, from: SocketAddr, to: SocketAddr) -> Option<&mut Client> {
    if !clients.contains_key(&from) {
        if clients.len() >= MAX
            && let Some(quietest) = clients.iter().min_by_key(|(_, c)| c.last).map(|(a, _)| *a)
        {
            clients.remove(&quietest);
        }
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None).ok()?;
        rustix::net::connect(&socket, &to).ok()?;
        clients.insert(from, Client { socket, last: Instant::now() });
    }
    clients.get_mut(&from)
}

/// Waits for datagrams, a second at most, and names the clients for whom there are answers.
fn wait(listener: &OwnedFd, clients: &HashMap<SocketAddr, Client>) -> io::Result<Vec<SocketAddr>> {
    let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
    fds.extend(clients.values().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
    match poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = fds[1..].iter().zip(clients.keys()).filter(|(fd, _)| !fd.revents().is_empty());
    Ok(ready.map(|(_, address)| *address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn each_client_gets_its_own_answers_and_is_remembered() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = UdpSocket::bind("[::1]:0").unwrap();
        let (to, at) = (server.local_addr().unwrap(), listener.local_addr().unwrap());
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            for _ in 0..4 {
                let (n, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..n], from).unwrap();
            }
        });
        let parent = rustix::process::getppid();
        let relay = std::thread::spawn(move || serve(&listener.into(), to, Duration::from_millis(10), parent));
        let clients: Vec<_> = (0..2).map(|_| UdpSocket::bind("[::1]:0").unwrap()).collect();
        for round in 0..2u8 {
            for (i, client) in (0u8..).zip(&clients) {
                client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                client.send_to(&[round, i], at).unwrap();
                let mut buffer = [0; 10];
                assert_eq!(client.recv(&mut buffer).unwrap(), 2);
                assert_eq!(buffer[..2], [round, i]);
            }
        }
        echo.join().unwrap();
        // Its clients are remembered for long, so it is still there.
        assert!(!relay.is_finished());
    }
}
