//! The table in the kernel.

use std::sync::{Mutex, PoisonError};

use wharf_netlink::nft::{Batch, Family, Place};
use wharf_netlink::{NetlinkError, Socket};

use crate::{FirewallError, Policed, Published, RuleSet, elements};

/// One daemon's table, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Table {
    name: String,
    socket: Mutex<Socket>,
}

impl Table {
    /// Opens the connection to the kernel; writes nothing.
    pub fn open(name: &str) -> Result<Self, FirewallError> {
        let socket = Socket::open(wharf_netlink::Family::Netfilter).map_err(|source| FirewallError {
            action: "opening table",
            table: name.to_owned(),
            source,
        })?;
        Ok(Self { name: name.to_owned(), socket: Mutex::new(socket) })
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces whatever the table holds, in one transaction: no packet sees a half-written table.
    pub fn replace(&self, set: &RuleSet, published: &[Published], policed: &[Policed]) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        // Deleting what may not exist: add it first.
        batch.add_table(Family::Inet, &self.name);
        batch.delete_table(Family::Inet, &self.name);
        batch.add_table(Family::Inet, &self.name);
        for (id, map) in set.maps.iter().enumerate() {
            batch.add_map(Family::Inet, &self.name, map.name, map.kind, id as u32 + 1);
        }
        for (id, wanted) in set.sets.iter().enumerate() {
            let id = (set.maps.len() + id) as u32 + 1;
            batch.add_set(Family::Inet, &self.name, wanted.name, wanted.kind, id);
        }
        for chain in &set.chains {
            batch.add_chain(Family::Inet, &self.name, chain.name, chain.base, None);
        }
        for chain in &set.chains {
            for (rule, comment) in &chain.rules {
                batch.add_rule(Family::Inet, &self.name, chain.name, Place::Last, rule, comment);
            }
        }
        for (map, elements) in elements(published) {
            batch.add_elements(Family::Inet, &self.name, map, &elements);
        }
        self.put_policed(&mut batch, policed);
        self.commit("writing table", batch)
    }

    /// Replaces the rules of the chains in which two rule sets of the same families differ, in one transaction. Maps and
    /// sets keep their elements.
    pub fn change(&self, from: &RuleSet, to: &RuleSet) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        for (old, new) in from.chains.iter().zip(&to.chains).filter(|(old, new)| old != new) {
            // One that grows at its end grows only there.
            let kept = if new.rules.starts_with(&old.rules) { old.rules.len() } else { 0 };
            if kept == 0 {
                batch.flush_chain(Family::Inet, &self.name, new.name);
            }
            for (rule, comment) in &new.rules[kept..] {
                batch.add_rule(Family::Inet, &self.name, new.name, Place::Last, rule, comment);
            }
        }
        self.commit("changing rules of table", batch)
    }

    /// Publishes ports. Work is constant per port.
    pub fn publish(&self, published: &[Published]) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        for (map, elements) in elements(published) {
            batch.add_elements(Family::Inet, &self.name, map, &elements);
        }
        self.commit("publishing ports in table", batch)
    }

    /// Withdraws ports. Those that are not there (someone flushed the table) are withdrawn already.
    pub fn withdraw(&self, published: &[Published]) -> Result<(), FirewallError> {
        let maps = elements(published);
        let mut batch = Batch::new();
        for (map, elements) in &maps {
            batch.delete_elements(Family::Inet, &self.name, map, elements);
        }
        let gone = |e: &FirewallError| e.source.is(wharf_netlink::Errno::NOENT);
        let action = "withdrawing ports from table";
        match self.commit(action, batch) {
            Err(e) if gone(&e) => {}
            other => return other,
        }
        // One missing element refuses the whole batch: take the others one by one.
        for (map, elements) in &maps {
            for element in elements {
                let mut batch = Batch::new();
                batch.delete_elements(Family::Inet, &self.name, map, std::slice::from_ref(element));
                match self.commit(action, batch) {
                    Err(e) if gone(&e) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Whether every chain of the rule set is there. Someone else may have flushed all tables.
    pub fn is_whole(&self, set: &RuleSet) -> Result<bool, FirewallError> {
        let chains = self.with(wharf_netlink::nft::chains).map_err(|source| FirewallError {
            action: "reading table",
            table: self.name.clone(),
            source,
        })?;
        let ours: Vec<_> = chains.iter().filter(|c| c.family == Family::Inet && c.table == self.name).collect();
        Ok(set
            .chains
            .iter()
            .all(|want| ours.iter().any(|c| c.name == want.name && c.uses as usize >= want.rules.len())))
    }

    /// Deletes the table if it exists.
    pub fn remove(&self) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        batch.add_table(Family::Inet, &self.name);
        batch.delete_table(Family::Inet, &self.name);
        self.commit("removing table", batch)
    }

    pub(crate) fn commit(&self, action: &'static str, batch: Batch) -> Result<(), FirewallError> {
        self.with(|socket| batch.commit(socket)).map_err(|source| FirewallError {
            action,
            table: self.name.clone(),
            source,
        })
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Socket) -> Result<T, NetlinkError>) -> Result<T, NetlinkError> {
        // Each exchange is complete in itself, so a panic of another thread leaves the socket usable.
        work(&mut self.socket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
