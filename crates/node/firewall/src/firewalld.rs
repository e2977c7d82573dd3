//! firewalld, by D-Bus: as with Docker our bridges are in its zone `docker`, whose target is ACCEPT, and its policy
//! `docker-forwarding` lets forwarded packets into that zone. What containers may do is decided by our own table alone.
//!
//! Names and calls: firewalld.dbus(5); zone and policy are those of moby `libnetwork/iptables/firewalld.go`, so that
//! what an administrator knows of the one holds for the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use wharf_dbus::{Body, Call, Connection, Message};

/// Where the bus is.
pub const BUS: &str = "/run/dbus/system_bus_socket";

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONE: &str = "docker";
const POLICY: &str = "docker-forwarding";
/// A reload of many zones takes its time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the bus that firewalld is on, or may come to.
#[derive(Debug)]
pub struct Firewalld {
    bus: Connection,
}

/// What happened to firewalld.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It came, went, or has read its configuration again.
    Changed,
    /// It has read its configuration again.
    Reloaded,
}

fn call<'a>(path: &'a str, interface: &'a str, member: &'a str, signature: &'a str) -> Call<'a> {
    Call { destination: NAME, path, interface, member, signature }
}

/// A map's entry whose value is a text.
fn text(body: &mut Body, key: &str, value: &str) {
    body.structure().string(key).signature("s").string(value);
}

/// A map's entry whose value is a list of one text.
fn list(body: &mut Body, key: &str, value: &str) {
    body.structure().string(key).signature("as").array(4, |b| {
        b.string(value);
    });
}

fn named(error: &io::Error, what: &str) -> bool {
    error.to_string().contains(what)
}

impl Firewalld {
    /// Connects to the bus and asks for news.
    ///
    /// # Errors
    /// `NotFound` where there is no bus.
    pub fn connect(socket: &Path) -> io::Result<Firewalld> {
        let mut bus = Connection::open(socket, PATIENCE)?;
        bus.introduce()?;
        bus.subscribe("type='signal',interface='org.fedoraproject.FirewallD1',member='Reloaded'")?;
        bus.subscribe(
            "type='signal',interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.fedoraproject.FirewallD1'",
        )?;
        Ok(Firewalld { bus })
    }

    /// Whether it runs, and for the calling thread's network: one of another namespace has no business with our links.
    pub fn is_here(&mut self) -> io::Result<bool> {
        let Some(pid) = self.bus.process_of(NAME)? else { return Ok(false) };
        let own = std::fs::read_link("/proc/thread-self/ns/net")?;
        // Gone in between: not here.
        Ok(std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its == own))
    }

    /// Reads what came. Call it when the connection has something to read; one message a call.
    pub fn news(&mut self) -> io::Result<Option<News>> {
        let message = self.bus.receive()?;
        Ok(read(&message))
    }

    /// News that came while something else was asked.
    pub fn missed(&mut self) -> Option<News> {
        let all: Vec<_> = self.bus.take_signals().iter().filter_map(read).collect();
        let reloaded = all.contains(&News::Reloaded).then_some(News::Reloaded);
        reloaded.or(all.first().copied())
    }

    fn ask(&mut self, interface: &str, member: &str, arguments: &[&str]) -> io::Result<Message> {
        let mut body = Body::default();
        for argument in arguments {
            body.string(argument);
        }
        let signature = "s".repeat(arguments.len());
        self.bus.call(&call(PATH, interface, member, &signature), &body)
    }

    /// Puts links into the zone, which is made where it is missing. Returns how many were not in it.
    pub fn settle(&mut self, links: &[String]) -> io::Result<usize> {
        const OF_ZONES: &str = "org.fedoraproject.FirewallD1.zone";
        let mut changed = 0;
        for link in links {
            let zone = self.ask(OF_ZONES, "getZoneOfInterface", &[link])?.strings();
            if zone.first().is_some_and(|z| z == ZONE) {
                continue;
            }
            let moved = self.ask(OF_ZONES, "changeZoneOfInterface", &[ZONE, link]);
            if let Err(e) = moved {
                if !named(&e, "INVALID_ZONE") {
                    return Err(e);
                }
                self.make_zone()?;
                self.ask(OF_ZONES, "changeZoneOfInterface", &[ZONE, link])?;
            }
            changed += 1;
        }
        Ok(changed)
    }

    /// Takes links out of the zone. One that is not in it is success.
    pub fn forget(&mut self, links: &[String]) -> io::Result<()> {
        for link in links {
            match self.ask("org.fedoraproject.FirewallD1.zone", "removeInterface", &[ZONE, link]) {
                Err(e) if named(&e, "UNKNOWN_INTERFACE") || named(&e, "INVALID_ZONE") => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Makes zone and policy, which are permanent as Docker's are, and has them read.
    fn make_zone(&mut self) -> io::Result<()> {
        const PERMANENT: &str = "/org/fedoraproject/FirewallD1/config";
        const CONFIG: &str = "org.fedoraproject.FirewallD1.config";
        let mut zone = Body::default();
        zone.string(ZONE).array(8, |map| {
            text(map, "version", "1.0");
            text(map, "short", ZONE);
            text(map, "description", "zone for docker bridge network interfaces");
            text(map, "target", "ACCEPT");
        });
        let mut policy = Body::default();
        policy.string(POLICY).array(8, |map| {
            text(map, "version", "1.0");
            text(map, "short", POLICY);
            text(map, "description", "allow forwarding to the docker zone");
            text(map, "target", "ACCEPT");
            list(map, "ingress_zones", "ANY");
            list(map, "egress_zones", ZONE);
        });
        for (member, body) in [("addZone2", zone), ("addPolicy", policy)] {
            match self.bus.call(&call(PERMANENT, CONFIG, member, "sa{sv}"), &body) {
                // Docker's own, or of an earlier life.
                Err(e) if named(&e, "NAME_CONFLICT") => {}
                other => drop(other?),
            }
        }
        self.ask(NAME, "reload", &[]).map(drop)
    }
}

impl AsFd for Firewalld {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bus.as_fd()
    }
}

fn read(message: &Message) -> Option<News> {
    match message.member.as_str() {
        "Reloaded" => Some(News::Reloaded),
        "NameOwnerChanged" => Some(News::Changed),
        _ => None,
    }
}
