//! From what a person typed to an image.

use std::collections::BTreeSet;

use wharf_types::{Digest, Reference};

use crate::store::State;
use crate::{ImageError, ImageId, Images, hello};

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The image.
    pub id: ImageId,
    /// The name by which it was found; absent when found by id.
    pub reference: Option<Reference>,
}

impl Images {
    /// Finds an image by name, `name@digest`, id or id prefix, in the order of the containerd image store
    /// (moby `daemon/containerd/image.go`, `resolveImage`). `wharf/hello` is made when it is first asked for.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] (`No such image: x:latest`), [`ImageError::Ambiguous`], [`ImageError::Reference`].
    pub fn resolve(&self, text: &str) -> Result<Resolved, ImageError> {
        match find(&self.shared.read(), text) {
            Err(ImageError::NotFound(name)) if name == hello::NAME => {}
            other => return other,
        }
        self.make_hello()?;
        find(&self.shared.read(), text)
    }
}

/// A whole digest, with or without its algorithm.
fn as_digest(text: &str) -> Option<Digest> {
    let bare = text.len() == 64 && !text.contains(':');
    if bare { Digest::parse(&format!("sha256:{text}")).ok() } else { Digest::parse(text).ok() }
}

/// 4 to 64 hexadecimal digits, perhaps after `sha256:`.
fn as_prefix(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    ((4..=64).contains(&digits.len()) && digits.bytes().all(hex)).then_some(digits)
}

pub(crate) fn find(state: &State, text: &str) -> Result<Resolved, ImageError> {
    if let Some(digest) = as_digest(text) {
        let id = ImageId(digest);
        return match state.images.contains_key(&id) {
            true => Ok(Resolved { id, reference: None }),
            false => Err(ImageError::NotFound(id.to_string())),
        };
    }
    let name = Reference::parse(text)?.with_default_tag();
    if let Some(tag) = state.tags.get(&name) {
        return Ok(Resolved { id: tag.id.clone(), reference: Some(name) });
    }
    if let Some(digest) = name.digest() {
        let id = ImageId(digest.clone());
        let same_name = |(other, tag): (&Reference, &crate::records::Tag)| tag.id == id && other.name() == name.name();
        if state.tags.iter().any(same_name) {
            return Ok(Resolved { id, reference: Some(name) });
        }
    } else if let Some(prefix) = as_prefix(text) {
        let fitting: BTreeSet<&ImageId> = state.images.keys().filter(|id| id.0.hex().starts_with(prefix)).collect();
        let mut fitting = fitting.into_iter();
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => return Ok(Resolved { id: id.clone(), reference: None }),
            (Some(_), Some(_)) => return Err(ImageError::Ambiguous(text.to_owned())),
            (None, _) => {}
        }
    }
    Err(ImageError::NotFound(name.familiar()))
}
