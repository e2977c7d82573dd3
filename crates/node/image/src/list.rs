//! Listing, inspecting and history.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_oci::image::{Platform, media_type};
use wharf_types::{Digest, Reference, Timestamp};

use crate::resolve::find;
use crate::store::State;
use crate::{Details, HistoryEntry, Image, ImageError, ImageId, Images, ManifestKind, ManifestSummary, Summary};

/// Filters of `docker images`. Values of one filter are alternatives unless said otherwise; filters are combined.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Only images without (`true`) or with (`false`) a tag.
    pub dangling: Option<bool>,
    /// `key` or `key=value`; all must fit.
    pub label: Vec<String>,
    /// `key` or `key=value`; none may fit (`label!`).
    pub label_not: Vec<String>,
    /// Images made before these.
    pub before: Vec<String>,
    /// Images made after these.
    pub since: Vec<String>,
    /// Patterns of references (`path.Match`).
    pub reference: Vec<String>,
    /// Images that came before this moment, whenever they were made: as the containerd image store
    /// (moby `daemon/containerd/image_list.go`).
    pub until: Option<Timestamp>,
}

/// What a list tells beside names and dates.
#[derive(Clone, Copy, Debug, Default)]
pub struct More {
    /// What images share.
    pub shared: bool,
    /// Their manifests, one by one.
    pub manifests: bool,
}

impl Image {
    /// Whether the image is one manifest and no index.
    fn manifest_is_target(&self) -> bool {
        matches!(self.target.media_type.as_str(), media_type::MANIFEST | media_type::DOCKER_MANIFEST)
    }
}

impl Images {
    /// Lists images, newest first.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] for `before` and `since`; those of reading blobs, if manifests are asked for.
    pub fn list(&self, filters: &Filters, more: More) -> Result<Vec<Summary>, ImageError> {
        let mut rows = {
            let state = self.shared.read();
            let mut rows = list(&state, filters)?;
            if more.shared {
                share(&state, &mut rows);
            }
            rows
        };
        for row in &mut rows {
            if more.manifests || !row.image.manifest_is_target() {
                let manifests = self.manifests_of(&row.image)?;
                row.total = manifests.iter().map(ManifestSummary::total).sum();
                row.manifests = if more.manifests { manifests } else { Vec::new() };
            }
        }
        Ok(rows)
    }

    /// What all images take of the disk: every blob and every unpacked layer once.
    ///
    /// # Errors
    /// [`ImageError::Content`].
    pub fn usage(&self) -> Result<u64, ImageError> {
        let layers: u64 = self.shared.read().layers.values().map(|layer| layer.usage.bytes).sum();
        Ok(layers + self.shared.parts.content.size()?)
    }

    /// Tells all of one image.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Ambiguous`], [`ImageError::Reference`].
    pub fn inspect(&self, text: &str) -> Result<Details, ImageError> {
        let found = self.resolve(text)?;
        let state = self.shared.read();
        let image = state.images.get(&found.id).cloned().ok_or_else(|| ImageError::NotFound(text.to_owned()))?;
        let tagged = state.tags.values().filter(|tag| tag.id == found.id).map(|tag| tag.tagged);
        let last_tagged = tagged.max();
        let names = state.names(&found.id);
        drop(state);
        // An index is told by the manifest that runs here: the other blobs are not this platform's.
        let parts = std::iter::once(&image.manifest.config).chain(&image.manifest.layers);
        let parts: u64 = parts.map(|blob| blob.size).sum();
        let own = if image.manifest_is_target() { 0 } else { self.manifest_size(&image)? };
        Ok(Details { names, last_tagged, size: image.target.size + own + parts, image })
    }

    /// As [`Images::inspect`], of the manifest for one platform.
    ///
    /// # Errors
    /// As [`Images::inspect`]; [`ImageError::Platform`].
    pub fn inspect_for(&self, text: &str, wanted: &Platform) -> Result<Details, ImageError> {
        let mut details = self.inspect(text)?;
        let found = self.manifest_for(&details.image, wanted, text)?;
        let parts = std::iter::once(&found.manifest.config).chain(&found.manifest.layers);
        let parts: u64 = parts.map(|blob| blob.size).sum();
        let index = if details.image.manifest_is_target() { 0 } else { details.image.target.size };
        details.size = index + found.descriptor.size + parts;
        let chain = found.chain();
        let image = Image {
            id: ImageId(found.descriptor.digest.clone()),
            target: found.descriptor,
            manifest: found.manifest,
            config: found.config,
            chain,
            ..details.image.as_ref().clone()
        };
        details.image = Arc::new(image);
        Ok(details)
    }

    /// Bytes of the manifest that stands for an index.
    fn manifest_size(&self, image: &Image) -> Result<u64, ImageError> {
        let same = |m: &ManifestSummary| image.blobs.iter().any(|blob| blob.digest == m.descriptor.digest);
        let all = self.manifests_of(image)?;
        let fitting = all.iter().find(|m| match &m.kind {
            ManifestKind::Image { platform, .. } => same(m) && *platform == image.config.platform,
            _ => false,
        });
        Ok(fitting.map_or(0, |m| m.descriptor.size))
    }

    /// The steps that made an image, newest first.
    ///
    /// # Errors
    /// As [`Images::inspect`].
    pub fn history(&self, text: &str, platform: Option<&Platform>) -> Result<Vec<HistoryEntry>, ImageError> {
        let found = self.resolve(text)?;
        let mut image = self.get(&found.id).map_err(|_| ImageError::NotFound(text.to_owned()))?;
        if let Some(wanted) = platform {
            image = self.for_platform(&image, wanted, text)?;
        }
        let state = self.shared.read();
        let mut sizes: Vec<u64> = state.downwards(image.chain.as_ref()).map(|(_, layer)| layer.usage.bytes).collect();
        let steps = image.config.history.iter();
        // Sizes are taken from the lowest layer up; `sizes` has it last.
        let mut entries: Vec<HistoryEntry> = steps
            .map(|step| HistoryEntry {
                id: "<missing>".to_owned(),
                created: step.created.unwrap_or_default().seconds(),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size: if step.empty_layer { 0 } else { sizes.pop().unwrap_or(0) },
                comment: step.comment.clone(),
            })
            .collect();
        entries.reverse();
        if let Some(first) = entries.first_mut() {
            first.id = image.id.to_string();
            first.tags = state.names(&image.id).tags.iter().map(Reference::familiar).collect();
        }
        Ok(entries)
    }
}

pub(crate) fn list(state: &State, filters: &Filters) -> Result<Vec<Summary>, ImageError> {
    let created = |text: &String| -> Result<Timestamp, ImageError> {
        let found = find(state, text)?;
        Ok(state.images.get(&found.id).map(made).unwrap_or_default())
    };
    let before = filters.before.iter().map(created).collect::<Result<Vec<_>, _>>()?.into_iter().min();
    let since = filters.since.iter().map(created).collect::<Result<Vec<_>, _>>()?.into_iter().max();
    let mut found = Vec::new();
    let mut all = state.all_names();
    for image in state.images.values() {
        let mut names = all.remove(&image.id).unwrap_or_default();
        let age = before.is_none_or(|t| made(image) < t) && since.is_none_or(|t| made(image) > t);
        let age = age && filters.until.is_none_or(|t| image.added < t);
        let dangling = filters.dangling.is_none_or(|wanted| wanted == names.tags.is_empty());
        if !age || !dangling || !labels_fit(image, filters) {
            continue;
        }
        if !filters.reference.is_empty() {
            let fits = |name: &Reference| filters.reference.iter().any(|pattern| name_fits(pattern, name));
            names.tags.retain(fits);
            names.digests.retain(|name| fits(name) || names.tags.iter().any(|tag| tag.name() == name.name()));
            if names.tags.is_empty() && names.digests.is_empty() {
                continue;
            }
        }
        let total = image.size + image.unpacked;
        found.push(Summary { image: image.clone(), names, total, shared: None, manifests: Vec::new() });
    }
    found.sort_by_key(|summary| std::cmp::Reverse(made(&summary.image)));
    Ok(found)
}

/// Adds up the unpacked layers that more than one image or platform has.
fn share(state: &State, rows: &mut [Summary]) {
    let mut counts: HashMap<&Digest, usize> = HashMap::new();
    for image in state.images.values() {
        for (chain, _) in state.chain(image) {
            *counts.entry(chain).or_default() += 1;
        }
    }
    for row in rows {
        let common = state.chain(&row.image).filter(|(chain, _)| counts.get(chain).is_some_and(|n| *n > 1));
        row.shared = Some(common.map(|(_, layer)| layer.usage.bytes).sum());
    }
}

fn made(image: &Arc<Image>) -> Timestamp {
    image.config.created.unwrap_or_default()
}

fn labels_fit(image: &Image, filters: &Filters) -> bool {
    let labels = &image.config.config.labels;
    let has = |wanted: &String| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    };
    filters.label.iter().all(has) && !filters.label_not.iter().any(has)
}

/// Whether a pattern fits a name as a whole or without tag and digest (`reference.FamiliarMatch`).
fn name_fits(pattern: &str, name: &Reference) -> bool {
    glob(pattern.as_bytes(), name.familiar().as_bytes()) || glob(pattern.as_bytes(), name.familiar_name().as_bytes())
}

/// Go's `path.Match`: `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` are classes, a backslash quotes. A pattern
/// that is malformed fits nothing.
///
/// Going back to the last star is enough, because no star can reach over a slash; so the time is bounded by the
/// product of the lengths whatever the pattern is.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut at) = (pattern, 0);
    let mut star: Option<(&[u8], usize)> = None;
    loop {
        if let Some((b'*', after)) = rest.split_first() {
            star = Some((after, at));
            rest = after;
            continue;
        }
        if rest.is_empty() && at == text.len() {
            return true;
        }
        if let Some(after) = text.get(at).and_then(|b| one(rest, *b)) {
            rest = after;
            at += 1;
            continue;
        }
        match star {
            Some((after, from)) if text.get(from).is_some_and(|b| *b != b'/') => {
                star = Some((after, from + 1));
                (rest, at) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one byte against the pattern's first part, which is no star, and returns the pattern's rest.
fn one(pattern: &[u8], b: u8) -> Option<&[u8]> {
    match pattern.split_first()? {
        (b'?', rest) => (b != b'/').then_some(rest),
        (b'[', rest) => class(rest).and_then(|(set, rest)| set.fits(b).then_some(rest)),
        (b'\\', rest) => rest.split_first().and_then(|(p, rest)| (*p == b).then_some(rest)),
        (p, rest) => (*p == b).then_some(rest),
    }
}

struct Class {
    negated: bool,
    ranges: Vec<(u8, u8)>,
}

impl Class {
    fn fits(&self, b: u8) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&b)) != self.negated
    }
}

/// Reads a class up to its `]`, and what follows.
fn class(pattern: &[u8]) -> Option<(Class, &[u8])> {
    let (negated, mut rest) = pattern.strip_prefix(b"^").map_or((false, pattern), |rest| (true, rest));
    let mut ranges = Vec::new();
    let edge = |rest: &[u8]| -> Option<(u8, usize)> {
        match rest {
            [b'\\', b, ..] => Some((*b, 2)),
            [b'\\' | b'-' | b']', ..] | [] => None,
            [b, ..] => Some((*b, 1)),
        }
    };
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            return Some((Class { negated, ranges }, &rest[1..]));
        }
        let (low, n) = edge(rest)?;
        rest = &rest[n..];
        let mut high = low;
        if rest.first() == Some(&b'-') {
            let (end, n) = edge(&rest[1..])?;
            high = end;
            rest = &rest[1 + n..];
        }
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_gos_path_match_does() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("*", "user/app", false),
            ("*/*", "user/app", true),
            ("b[a-z]?", "bus", true),
            ("b[^a-t]s", "bus", true),
            ("b[^u]s", "bus", false),
            ("b\\*s", "b*s", true),
            ("b[", "b[", false),
            ("[]a]", "]", false),
            ("*a*b*c", "xaybzc", true),
            ("*a*b", "a/ab", false),
            ("*/a*", "x/ab", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}
