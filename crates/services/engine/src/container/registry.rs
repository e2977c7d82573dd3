//! Finding containers by id, by a unique prefix of an id, and by name.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wharf_error::{HasKind, Kind};
use wharf_types::ContainerId;

use super::Container;

/// No one container is meant. Docker's texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// None.
    #[error("No such container: {0}")]
    Missing(String),
    /// Several.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// A name that another container has.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        owner: ContainerId,
    },
}

impl HasKind for LookupError {
    fn kind(&self) -> Kind {
        match self {
            LookupError::Missing(_) => Kind::NotFound,
            LookupError::Ambiguous(_) => Kind::Invalid,
            LookupError::NameTaken { .. } => Kind::Conflict,
        }
    }
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    names: HashMap<String, ContainerId>,
}

/// All containers of one engine.
#[derive(Debug, Default)]
pub struct Registry(RwLock<Index>);

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name, so that no other create or rename can; [`Registry::release`] gives it back.
    pub fn reserve(&self, name: &str, id: &ContainerId) -> Result<(), LookupError> {
        let mut index = self.write();
        if let Some(owner) = index.names.get(name) {
            return Err(LookupError::NameTaken { name: name.to_owned(), owner: owner.clone() });
        }
        index.names.insert(name.to_owned(), id.clone());
        Ok(())
    }

    /// Gives a name back, if this container has it.
    pub fn release(&self, name: &str, id: &ContainerId) {
        let mut index = self.write();
        if index.names.get(name) == Some(id) {
            index.names.remove(name);
        }
    }

    /// Adds a container whose name is reserved.
    pub fn add(&self, container: Arc<Container>) {
        self.write().by_id.insert(container.id.as_str().to_owned(), container);
    }

    /// Takes a container out, with its name.
    pub fn remove(&self, id: &ContainerId) {
        let mut index = self.write();
        index.by_id.remove(id.as_str());
        index.names.retain(|_, owner| owner != id);
    }

    /// Finds a container as clients name it: whole id, name (with or without slash), unique prefix.
    pub fn find(&self, reference: &str) -> Result<Arc<Container>, LookupError> {
        let index = self.read();
        let missing = || LookupError::Missing(reference.to_owned());
        if let Some(found) = index.by_id.get(reference) {
            return Ok(found.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(found) = index.names.get(name).and_then(|id| index.by_id.get(id.as_str())) {
            return Ok(found.clone());
        }
        if reference.is_empty() {
            return Err(missing());
        }
        let from = (Bound::Included(reference.to_owned()), Bound::Unbounded);
        let mut matches = index.by_id.range(from).take_while(|(id, _)| id.starts_with(reference));
        match (matches.next(), matches.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(LookupError::Ambiguous(reference.to_owned())),
            (None, _) => Err(missing()),
        }
    }

    /// All containers.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }
}
