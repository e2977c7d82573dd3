//! Removing: names first, the image with its last name, then what nothing refers to any more.
//!
//! Texts and rules are those of moby's `daemon/containerd/image_delete.go`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use wharf_metadata::{Batch, Table};
use wharf_types::{Digest, Reference};

use crate::list::list;
use crate::records::Layer;
use crate::{Filters, Image, ImageError, ImageId, Images};

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Remove all names of an id, and the image although stopped containers use it.
    pub force: bool,
    /// Remove the images from which it was made too, as far as they have neither name nor user.
    pub prune: bool,
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// One thing that was removed, in order; the engine makes an event of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name, familiar form.
    Untagged {
        /// The name.
        name: String,
        /// The image it pointed to.
        id: ImageId,
    },
    /// An image.
    Deleted(ImageId),
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What was removed.
    pub removed: Vec<Removed>,
    /// Bytes freed.
    pub reclaimed: u64,
}

/// What to remove, decided before anything is done.
struct Plan {
    image: Arc<Image>,
    names: Vec<Reference>,
    /// Whether the image goes too.
    delete: bool,
}

impl Images {
    /// Removes by name (untags, and deletes with the last name) or by id. `users` is asked while changes of images
    /// wait, so it must not change images itself.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::InUse`], [`ImageError::Held`].
    pub fn remove(
        &self,
        text: &str,
        options: RemoveOptions,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Vec<Removed>, ImageError> {
        let _changes = self.shared.changes();
        let plan = self.plan(text, options, users)?;
        let mut parent = plan.image.parent.clone().filter(|_| plan.delete && options.prune);
        let (mut removed, _) = self.carry_out(plan, text)?;
        while let Some(plan) = parent.take().and_then(|id| self.unneeded_parent(&id, users)) {
            parent.clone_from(&plan.image.parent);
            let id = plan.image.id.to_string();
            match self.carry_out(plan, &id) {
                Ok((more, _)) => removed.extend(more),
                // What was asked for is done.
                Err(error) => tracing::warn!(%error, %id, "cannot remove the parent of an image"),
            }
        }
        Ok(removed)
    }

    /// How to remove an image from which a removed one was made: only without name, user and other children.
    fn unneeded_parent(&self, id: &ImageId, users: &dyn Fn(&ImageId) -> Vec<User>) -> Option<Plan> {
        let used = !users(id).is_empty();
        let state = self.shared.read();
        let image = state.images.get(id).cloned()?;
        let named = state.tags.values().any(|tag| tag.id == *id);
        let child = state.images.values().any(|other| other.parent.as_ref() == Some(id));
        let free = !used && !named && !child && !state.held(id);
        free.then(|| Plan { image, names: Vec::new(), delete: true })
    }

    /// Removes images that no container uses: those without a name, or with `dangling` = false all. A `dry` one only tells what would
    /// go, and what the files take that nothing else needs.
    ///
    /// # Errors
    /// Those of the stores; images that are in use are passed over.
    pub fn prune(
        &self,
        filters: &Filters,
        users: &dyn Fn(&ImageId) -> Vec<User>,
        dry: bool,
    ) -> Result<Pruned, ImageError> {
        let all = filters.dangling == Some(false);
        let filters = Filters { dangling: (!all).then_some(true), ..filters.clone() };
        let mut pruned = Pruned::default();
        let found = list(&self.shared.read(), &filters)?;
        let mut without = HashSet::new();
        for summary in found {
            let _changes = self.shared.changes();
            let id = &summary.image.id;
            if !users(id).is_empty() || self.shared.read().held(id) {
                continue;
            }
            let names = self.shared.read().tags.iter().filter(|(_, t)| t.id == *id).map(|(n, _)| n.clone()).collect();
            let plan = Plan { image: summary.image.clone(), names, delete: true };
            if dry {
                pruned.reclaimed += self.tell(plan, &mut without, &mut pruned.removed);
                continue;
            }
            match self.carry_out(plan, id.as_str()) {
                Ok((removed, freed)) => {
                    pruned.removed.extend(removed);
                    pruned.reclaimed += freed;
                    wharf_fault::point("prune.next");
                }
                Err(ImageError::Held(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(pruned)
    }

    /// What a plan would remove and free, after those that went `without` before it.
    fn tell(&self, plan: Plan, without: &mut HashSet<ImageId>, removed: &mut Vec<Removed>) -> u64 {
        let Plan { image, names, .. } = plan;
        let state = self.shared.read();
        let needed = |without: &HashSet<ImageId>| -> HashSet<Digest> {
            let layers = state.chain(&image).filter(|(chain, _)| state.needs_chain(chain, without));
            let blobs = image.blobs.iter().filter(|blob| state.needs_blob(&blob.digest, without));
            layers.map(|(chain, _)| chain.clone()).chain(blobs.map(|blob| blob.digest.clone())).collect()
        };
        without.insert(image.id.clone());
        let kept = needed(without);
        let layers: BTreeMap<_, _> = state.chain(&image).filter(|(chain, _)| !kept.contains(*chain)).collect();
        let blobs: BTreeMap<_, _> =
            image.blobs.iter().filter(|b| !kept.contains(&b.digest)).map(|b| (&b.digest, b.size)).collect();
        removed.extend(names.into_iter().map(|name| Removed::Untagged { name: name.familiar(), id: image.id.clone() }));
        removed.push(Removed::Deleted(image.id.clone()));
        layers.values().map(|layer| layer.usage.bytes).sum::<u64>() + blobs.values().sum::<u64>()
    }

    fn plan(
        &self,
        text: &str,
        options: RemoveOptions,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> Result<Plan, ImageError> {
        let found = {
            let state = self.shared.read();
            crate::resolve::find(&state, text)?
        };
        let users = users(&found.id);
        let state = self.shared.read();
        let image = state.images.get(&found.id).cloned().ok_or_else(|| ImageError::NotFound(text.to_owned()))?;
        let names: Vec<Reference> =
            state.tags.iter().filter(|(_, t)| t.id == found.id).map(|(n, _)| n.clone()).collect();
        let conflict = |what: String, remedy, reason| ImageError::InUse { what, remedy, reason };
        let short = |container: &str| container.chars().take(12).collect::<String>();
        let Some(name) = found.reference else {
            if !options.force && names.len() > 1 {
                let reason = "image is referenced in multiple repositories".to_owned();
                return Err(conflict(text.to_owned(), "must be forced", reason));
            }
            if let Some(user) = users.iter().find(|user| user.running) {
                let reason = format!("image is being used by running container {}", short(&user.container));
                return Err(conflict(text.to_owned(), "cannot be forced", reason));
            }
            if let Some(user) = users.first().filter(|_| !options.force) {
                let reason = format!("image is being used by stopped container {}", short(&user.container));
                return Err(conflict(text.to_owned(), "must be forced", reason));
            }
            return Ok(Plan { image, names, delete: true });
        };
        if name.digest().is_some() && !state.tags.contains_key(&name) {
            // `name@digest` stands for the image under all tags of that name.
            let (these, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|n| n.name() == name.name());
            let delete = others.is_empty() && users.is_empty();
            return Ok(Plan { image, names: these, delete });
        }
        let last = names.len() == 1;
        if last
            && !options.force
            && let Some(user) = users.first()
        {
            let reason =
                format!("container {} is using its referenced image {}", short(&user.container), image.id.short());
            return Err(conflict(name.familiar(), "must be forced", reason));
        }
        // Forced away from a container, the image stays without a name until the container is gone.
        Ok(Plan { image, names: vec![name], delete: last && users.is_empty() })
    }

    /// Removes names, and the image if planned, in one commit; then files that nothing needs. `changes` is held.
    fn carry_out(&self, plan: Plan, text: &str) -> Result<(Vec<Removed>, u64), ImageError> {
        let Plan { image, names, delete } = plan;
        let mut batch = Batch::new();
        for name in &names {
            batch.remove(Table::Tags, &name.to_string());
        }
        let mut layers: Vec<(Digest, Layer)> = Vec::new();
        let without = HashSet::from([image.id.clone()]);
        if delete {
            let mut state = self.shared.write();
            if state.held(&image.id) {
                return Err(ImageError::Held(text.to_owned()));
            }
            state.leaving.insert(image.id.clone());
            let unneeded = state.chain(&image).filter(|(chain, _)| !state.needs_chain(chain, &without));
            layers.extend(unneeded.map(|(chain, layer)| (chain.clone(), layer.clone())));
            layers.sort_by(|a, b| a.0.cmp(&b.0));
            layers.dedup_by(|a, b| a.0 == b.0);
            drop(state);
            batch.remove(Table::Images, image.id.as_str());
            for (chain, _) in &layers {
                batch.remove(Table::Snapshots, chain.as_str());
            }
        }
        wharf_fault::point("rmi.before-commit");
        let committed = self.shared.parts.metadata.commit(batch);
        let mut freed = 0;
        let mut blobs = Vec::new();
        {
            let mut state = self.shared.write();
            state.leaving.remove(&image.id);
            committed?;
            for name in &names {
                state.tags.remove(name);
            }
            if delete {
                state.images.remove(&image.id);
                for (chain, layer) in &layers {
                    state.layers.remove(chain);
                    freed += layer.usage.bytes;
                }
                let unneeded = image.blobs.iter().filter(|blob| !state.needs_blob(&blob.digest, &without));
                blobs.extend(unneeded.map(|blob| (blob.digest.clone(), blob.size)));
            }
        }
        wharf_fault::point("rmi.after-commit");
        freed += blobs.iter().map(|(_, size)| size).sum::<u64>();
        let digests: Vec<Digest> = blobs.into_iter().map(|(digest, _)| digest).collect();
        self.shared.discard(&digests, &[]);
        wharf_fault::point("rmi.after-blobs");
        for (_, layer) in &layers {
            if let Err(error) = self.shared.parts.snapshots.remove(&layer.snapshot) {
                tracing::warn!(%error, "cannot remove a layer that no image needs");
            }
        }
        wharf_fault::point("rmi.after-layers");
        let untagged = |name: Reference| Removed::Untagged { name: name.familiar(), id: image.id.clone() };
        let mut removed: Vec<Removed> = names.into_iter().map(untagged).collect();
        if delete {
            removed.push(Removed::Deleted(image.id.clone()));
        }
        Ok((removed, freed))
    }
}
