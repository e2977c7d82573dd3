//! What the image store keeps in the metadata store.

use serde::{Deserialize, Serialize};
use wharf_metadata::{Record, Table};
use wharf_oci::image::Descriptor;
use wharf_snapshot::{Snapshot, Usage};
use wharf_types::{Digest, Timestamp};

use crate::{Image, ImageId};

impl Record for Image {
    const TABLE: Table = Table::Images;
    const VERSION: u32 = 1;
}

/// A name, under its canonical text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) id: ImageId,
    pub(crate) tagged: Timestamp,
}

impl Record for Tag {
    const TABLE: Table = Table::Tags;
    const VERSION: u32 = 1;
}

/// An unpacked layer, under its chain id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) snapshot: Snapshot,
    /// The chain id of the layer below.
    pub(crate) parent: Option<Digest>,
    pub(crate) diff_id: Digest,
    /// The blob it was unpacked from.
    pub(crate) blob: Descriptor,
    pub(crate) usage: Usage,
    /// The boot in which it was unpacked, until its files are known to be on disk. If the machine went down before
    /// that, the layer is unpacked anew.
    pub(crate) unsynced: Option<String>,
}

impl Record for Layer {
    const TABLE: Table = Table::Snapshots;
    const VERSION: u32 = 1;
}

/// The chain id of a layer upon another (image-spec, config.md, "Layer ChainID").
pub(crate) fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    let Some(parent) = parent else { return diff_id.clone() };
    let hash = ring::digest::digest(&ring::digest::SHA256, format!("{parent} {diff_id}").as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    Digest::from_sha256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let digest = |b| Digest::from_sha256([b; 32]);
        assert_eq!(chain_id(None, &digest(1)), digest(1));
        let text = format!("{} {}", digest(1), digest(2));
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let expected = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(chain_id(Some(&digest(1)), &digest(2)).hex(), expected);
    }
}
