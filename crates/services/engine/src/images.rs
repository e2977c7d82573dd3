//! Images for clients: the store's operations with Docker's events, and with the containers that use them.

mod capture;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use wharf_api_types::OciPlatform;
use wharf_image::{
    Details, Filters as ImageFilters, HistoryEntry, ImageId, ImportRequest, LoadProgress, ManifestSummary, More,
    Pruned, RemoveOptions, Removed, Resolved, Summary, User,
};
use wharf_oci::image::Platform;
use wharf_types::Reference;

pub(crate) use capture::PAUSE_MARK;
pub use capture::{Capture, CaptureError, difference};

use crate::EngineError;
use crate::container::{Registry, View};
use crate::events::{Events, Subject};

/// Images of one engine.
pub struct Images {
    pub(crate) store: Arc<wharf_image::Images>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: Arc<Events>,
}

impl Images {
    fn tell(&self, action: &str, id: &ImageId, name: &str) {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        self.events.publish(Subject::Image, action, id.as_str(), attributes);
    }

    /// Tells of an image that the builder made under a name.
    pub fn tell_built(&self, name: &str, action: &str) {
        if let Ok(found) = self.store.resolve(name) {
            self.tell(action, &found.id, name);
        }
    }

    fn users(&self, id: &ImageId) -> Vec<User> {
        let all = self.registry.all();
        let using = all
            .iter()
            .map(|c| c.view())
            .filter(|v| v.record.image == id.as_str() || v.record.mounted_images().any(|i| i == id.as_str()));
        using.map(|v| User { container: v.record.id.to_string(), running: v.state.status.is_running() }).collect()
    }

    /// How many containers use an image.
    pub fn containers(&self, id: &ImageId) -> i64 {
        self.users(id).len() as i64
    }

    /// The containers of an image, newest first, each with the platform for which it was made.
    pub fn containers_with_platform(&self, id: &ImageId) -> Vec<(String, OciPlatform)> {
        let mut using: Vec<_> =
            self.registry.all().iter().map(|c| c.view()).filter(|v| v.record.image == id.as_str()).collect();
        using.sort_by_key(|v| std::cmp::Reverse(v.record.created));
        let of = |v: &Arc<View>| {
            let platform = v.record.manifest.as_ref().and_then(|m| m.platform.clone()).unwrap_or_default();
            (v.record.id.to_string(), platform)
        };
        using.iter().map(of).collect()
    }

    /// Lists.
    pub fn list(&self, filters: &ImageFilters, more: More) -> Result<Vec<Summary>, EngineError> {
        Ok(self.store.list(filters, more)?)
    }

    /// What all images take of the disk.
    pub fn usage(&self) -> Result<u64, EngineError> {
        Ok(self.store.usage()?)
    }

    /// Tells all of one, or of what it is for one platform.
    pub fn inspect(&self, name: &str, platform: Option<&Platform>) -> Result<Details, EngineError> {
        match platform {
            Some(platform) => Ok(self.store.inspect_for(name, platform)?),
            None => Ok(self.store.inspect(name)?),
        }
    }

    /// The manifests of one.
    pub fn manifests(&self, details: &Details) -> Result<Vec<ManifestSummary>, EngineError> {
        Ok(self.store.manifests_of(&details.image)?)
    }

    /// The steps that made one.
    pub fn history(&self, name: &str, platform: Option<&Platform>) -> Result<Vec<HistoryEntry>, EngineError> {
        Ok(self.store.history(name, platform)?)
    }

    /// Gives one a further name. Blocks for a commit.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<Resolved, EngineError> {
        let found = self.store.tag(source, name)?;
        self.tell("tag", &found.id, &name.familiar());
        Ok(found)
    }

    /// Removes by name or id. Blocks for a commit.
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<Vec<Removed>, EngineError> {
        let removed = self.store.remove(name, options, &|id| self.users(id))?;
        self.tell_removed(&removed);
        Ok(removed)
    }

    fn tell_removed(&self, removed: &[Removed]) {
        for item in removed {
            match item {
                Removed::Untagged { name, id } => self.tell("untag", id, name),
                Removed::Deleted(id) => self.tell("delete", id, id.as_str()),
            }
        }
    }

    /// Removes unused ones. Blocks for commits.
    pub fn prune(&self, filters: &ImageFilters, dry: bool) -> Result<Pruned, EngineError> {
        let pruned = self.store.prune(filters, &|id| self.users(id), dry)?;
        if dry {
            return Ok(pruned);
        }
        self.tell_removed(&pruned.removed);
        let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.reclaimed.to_string())]);
        self.events.publish(Subject::Image, "prune", "", attributes);
        Ok(pruned)
    }

    /// Makes an image of a file system's tar stream. Blocks while it reads.
    pub fn import(&self, request: ImportRequest, body: &mut (dyn Read + Send)) -> Result<ImageId, EngineError> {
        let hold = self.store.import(request, body)?;
        let id = hold.image.id.clone();
        let name = hold.reference.as_ref().map_or_else(|| id.to_string(), Reference::familiar);
        self.tell("import", &id, &name);
        Ok(id)
    }

    /// Takes images from a saved archive. Blocks while it reads.
    pub fn load(
        &self,
        body: &mut (dyn Read + Send),
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Vec<wharf_image::Loaded>, EngineError> {
        let loaded = self.store.load(body, platform, progress)?;
        for image in &loaded {
            let name = image.reference.as_ref().map_or_else(|| image.id.to_string(), Reference::familiar);
            self.tell("load", &image.id, &name);
        }
        Ok(loaded)
    }

    /// Writes images into an archive. Blocks while it writes.
    pub fn save(&self, names: &[String], platforms: &[Platform], out: &mut dyn Write) -> Result<(), EngineError> {
        self.store.save(names, platforms, out)?;
        for name in names {
            if let Ok(found) = self.store.resolve(name) {
                self.tell("save", &found.id, name);
            }
        }
        Ok(())
    }

    /// Checks that images can be saved, for a status before the archive begins.
    pub fn savable(&self, names: &[String], platforms: &[Platform]) -> Result<(), EngineError> {
        Ok(self.store.savable(names, platforms)?)
    }
}
