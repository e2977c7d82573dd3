//! Namespaces without any network, for `--network none`: only `lo`. A few are kept ready once one was asked for.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;

use wharf_netlink::route::{self, Which};
use wharf_netlink::{Family, Requests, Socket};
use wharf_types::IdMaps;

use crate::networks::lock;
use crate::{NetworkError, netns, sandbox};

/// How many are kept ready; more are made when half of them are used, so that not every start has one made beside it.
const READY: usize = 8;

/// The namespaces that are ready.
#[derive(Debug, Default)]
pub(crate) struct Solitude(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    ready: Vec<OwnedFd>,
    /// Hosts whose containers all have networks pay for none.
    wanted: bool,
}

impl Solitude {
    /// Takes one that is ready, or makes one; `home` is the caller's own namespace.
    pub(crate) fn take(&self, home: &OwnedFd, users: Option<&IdMaps>) -> Result<OwnedFd, NetworkError> {
        let ready = {
            let mut kept = lock(&self.0);
            kept.wanted = true;
            kept.ready.pop()
        };
        ready.map_or_else(|| make(home, users), Ok)
    }

    /// Makes as many as are missing, when half are used.
    pub(crate) fn fill(&self, home: &OwnedFd, users: Option<&IdMaps>) -> Result<(), NetworkError> {
        let present = {
            let kept = lock(&self.0);
            if !kept.wanted || kept.ready.len() > READY / 2 {
                return Ok(());
            }
            kept.ready.len()
        };
        for _ in present..READY {
            let made = make(home, users)?;
            let mut kept = lock(&self.0);
            if !kept.wanted {
                // Cleared meanwhile: the network is being closed.
                return Ok(());
            }
            kept.ready.push(made);
        }
        Ok(())
    }

    /// Lets them go.
    pub(crate) fn clear(&self) {
        *lock(&self.0) = Kept::default();
    }
}

fn make(home: &OwnedFd, users: Option<&IdMaps>) -> Result<OwnedFd, NetworkError> {
    netns::in_new(home, users, prepare)
}

/// Makes one that belongs to a user namespace which is there.
pub(crate) fn make_in(home: &OwnedFd, user: BorrowedFd<'_>) -> Result<OwnedFd, NetworkError> {
    netns::in_new_of(home, user, prepare)
}

fn prepare(netns: OwnedFd) -> Result<OwnedFd, NetworkError> {
    let failed = |source| NetworkError::Link { action: "raising", link: "lo".to_owned(), source };
    sandbox::set_common_parameters()?;
    let mut requests = Requests::new();
    route::set_up(&mut requests, Which::Name("lo"));
    Socket::open(Family::Route).and_then(|mut socket| socket.call(&mut requests)).map_err(failed)?;
    Ok(netns)
}
