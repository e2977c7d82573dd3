//! Leases: blobs and layers that stay although no image names them, across restarts. The build cache keeps its
//! steps by them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use wharf_metadata::{Batch, Record, Table};
use wharf_types::Digest;

use crate::{ImageError, Images};

/// What one lease keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Blobs.
    pub blobs: Vec<Digest>,
    /// Unpacked layers by chain id, each with those below it.
    pub chains: Vec<Digest>,
}

impl Record for Lease {
    const TABLE: Table = Table::Leases;
    const VERSION: u32 = 1;
}

impl Images {
    /// Keeps blobs and layers under a key, instead of what the key kept before. Take the lease while something else
    /// still keeps them ([`crate::NewLayer`], [`crate::Hold`]). Blocks for a commit.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn lease(&self, key: &str, lease: Lease) -> Result<(), ImageError> {
        let _changes = self.shared.changes();
        let mut batch = Batch::new();
        batch.put(key, &lease);
        self.shared.parts.metadata.commit(batch)?;
        let before = self.shared.write().leases.insert(key.to_owned(), lease);
        self.unneeded(before);
        Ok(())
    }

    /// Ends a lease and removes what nothing else needs. A key that keeps nothing is no error. Blocks for a commit.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn release(&self, key: &str) -> Result<(), ImageError> {
        let _changes = self.shared.changes();
        let mut batch = Batch::new();
        batch.remove(Table::Leases, key);
        self.shared.parts.metadata.commit(batch)?;
        let before = self.shared.write().leases.remove(key);
        self.unneeded(before);
        Ok(())
    }

    /// The lease of a key.
    pub fn leased(&self, key: &str) -> Option<Lease> {
        self.shared.read().leases.get(key).cloned()
    }

    /// Removes what a lease kept and nothing needs any more. `changes` is held.
    fn unneeded(&self, lease: Option<Lease>) {
        let Some(lease) = lease else { return };
        let none = HashSet::new();
        let state = self.shared.read();
        let blobs: Vec<Digest> = lease.blobs.into_iter().filter(|blob| !state.needs_blob(blob, &none)).collect();
        let below = lease.chains.iter().flat_map(|top| state.downwards(Some(top)).map(|(chain, _)| chain.clone()));
        let mut chains: Vec<Digest> = below.filter(|chain| !state.needs_chain(chain, &none)).collect();
        chains.sort();
        chains.dedup();
        drop(state);
        self.shared.discard(&blobs, &chains);
    }
}
