//! Listing and inspecting containers: from published views only, so that no container can hold up a list.

mod filter;
mod inspect;
mod summary;

use std::sync::Arc;

use wharf_api_types::query::ContainerList;
use wharf_api_types::{ContainerInspect, ContainerSummary};
use wharf_snapshot::Snapshotter;

use crate::EngineError;
use crate::config::EngineConfig;
use crate::container::{Container, Registry, Status, View};
use crate::networks::Catalog;
use crate::volumes::Volumes;

/// Lists and inspects.
pub struct Lists {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) images: Arc<wharf_image::Images>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) catalog: Arc<Catalog>,
}

/// Sizes of a container: its writable layer, and all of its root file system.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    writable: i64,
    root: i64,
}

impl Lists {
    fn newest_first(&self) -> Vec<(Arc<Container>, Arc<View>)> {
        let mut all: Vec<_> = self.registry.all().into_iter().map(|c| (c.clone(), c.view())).collect();
        all.sort_by_key(|(_, view)| std::cmp::Reverse(view.record.created));
        all
    }

    /// Lists, newest first.
    pub fn list(&self, query: &ContainerList) -> Result<Vec<ContainerSummary>, EngineError> {
        let filter = filter::Filter::read(self, &query.filters)?;
        // Docker: a limit, and filters by state or name, look at containers that do not run, too.
        let all = query.all || query.limit > 0 || filter.looks_at_all();
        let shown = self.newest_first().into_iter().map(|(_, view)| view).filter(|view| {
            !view.removed && (all || view.state.status.is_running() || view.state.status == Status::Restarting)
        });
        let limit = usize::try_from(query.limit).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
        let fitting = shown.filter(|view| filter.fits(view)).take(limit);
        Ok(fitting.map(|view| self.summary(&view, query.size.then(|| self.sizes(&view)))).collect())
    }

    /// Lists all with sizes, for `system df`. Blocks while it walks.
    pub fn disk_usage(&self) -> Vec<ContainerSummary> {
        let row = |view: &View| ContainerSummary {
            // Docker leaves it out here.
            image_manifest_descriptor: None,
            ..self.summary(view, Some(self.sizes(view)))
        };
        self.newest_first().iter().map(|(_, view)| row(view)).collect()
    }

    /// Shows everything; `size` walks the writable layer and blocks meanwhile.
    pub fn inspect(&self, name: &str, size: bool) -> Result<ContainerInspect, EngineError> {
        let view = self.registry.find(name)?.view();
        let sizes = size.then(|| self.sizes(&view));
        Ok(self.describe(&view, sizes))
    }

    fn sizes(&self, view: &View) -> Sizes {
        let writable = self.snapshots.usage(&view.record.snapshot).map(|u| u.bytes as i64).unwrap_or_default();
        let image = self.images.inspect(&view.record.image).map(|d| d.image.size as i64).unwrap_or_default();
        Sizes { writable, root: writable + image }
    }
}
