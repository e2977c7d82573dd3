//! Manifests and indexes as they come from outside: one blob, one meaning.

use serde::Deserialize;
use serde::de::IgnoredAny;
use wharf_oci::image::{Descriptor, Index, Manifest, Platform, media_type};
use wharf_types::Digest;

use crate::DistributionError;

/// Bytes of a manifest or index at most (CVE-2023-25153, CVE-2023-2253); the specification asks for at least 4 MiB.
pub const LIMIT: usize = 8 << 20;
/// Media types that we ask for, best first.
pub const ACCEPT: &str = concat!(
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"
);
/// Docker's first manifests.
const SCHEMA_1: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// A manifest or index with its bytes as they came.
#[derive(Clone, Debug)]
pub struct Document {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a document is.
#[derive(Clone, Debug)]
pub enum Content {
    /// One image for several platforms.
    Index(Index),
    /// One image.
    Manifest(Box<Manifest>),
}

/// The fields that tell an index from a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
}

/// Whether a media type is that of an index.
pub fn is_index(kind: &str) -> bool {
    matches!(kind, media_type::INDEX | media_type::DOCKER_INDEX)
}

/// Whether a media type is that of a manifest.
pub fn is_manifest(kind: &str) -> bool {
    matches!(kind, media_type::MANIFEST | media_type::DOCKER_MANIFEST)
}

/// The SHA-256 of bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut array = [0; 32];
    array.copy_from_slice(hash.as_ref());
    Digest::from_sha256(array)
}

/// Names what came, by the type that the registry sent or, where that says nothing, by the document itself.
///
/// # Errors
/// [`DistributionError::Document`].
pub fn identify(bytes: Vec<u8>, content_type: &str, subject: &str) -> Result<Document, DistributionError> {
    let sent = content_type.split(';').next().unwrap_or_default().trim();
    let shape = shape(&bytes, subject)?;
    let kind = match (is_index(sent) || is_manifest(sent) || SCHEMA_1.contains(&sent), shape.media_type) {
        (true, _) => sent.to_owned(),
        (false, Some(said)) => said,
        // An OCI document need not name its own type.
        (false, None) if shape.manifests.is_some() => media_type::INDEX.to_owned(),
        (false, None) => media_type::MANIFEST.to_owned(),
    };
    let descriptor = Descriptor::new(&kind, digest_of(&bytes), bytes.len() as u64);
    Ok(Document { descriptor, bytes })
}

fn shape(bytes: &[u8], subject: &str) -> Result<Shape, DistributionError> {
    let wrong = |reason: String| DistributionError::Document { subject: subject.to_owned(), reason };
    if bytes.len() > LIMIT {
        return Err(wrong(format!("{} bytes are more than the {LIMIT} that a manifest may have", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(|e| wrong(format!("no manifest: {e}")))
}

impl Document {
    /// Reads it. A document that could be read as an index or as a manifest, or that names another type than the one it
    /// came as, is refused (CVE-2021-41190).
    ///
    /// # Errors
    /// [`DistributionError::Document`].
    pub fn content(&self) -> Result<Content, DistributionError> {
        read(&self.bytes, &self.descriptor)
    }
}

/// Reads a document that a descriptor names; see [`Document::content`].
///
/// # Errors
/// [`DistributionError::Document`].
pub fn read(bytes: &[u8], descriptor: &Descriptor) -> Result<Content, DistributionError> {
    let subject = descriptor.digest.to_string();
    let wrong = |reason: String| DistributionError::Document { subject: subject.clone(), reason };
    let kind = descriptor.media_type.as_str();
    let shape = shape(bytes, &subject)?;
    let first = shape.fs_layers.is_some() || shape.signatures.is_some() || shape.schema_version == Some(1);
    if SCHEMA_1.contains(&kind) || first {
        return Err(wrong(format!(
            "media type \"{}\" is no longer supported, please rebuild the image as \"{}\" or \"{}\": not implemented",
            if SCHEMA_1.contains(&kind) { kind } else { SCHEMA_1[1] },
            media_type::DOCKER_MANIFEST,
            media_type::MANIFEST,
        )));
    }
    if shape.schema_version != Some(2) {
        return Err(wrong("the schema version is not 2".to_owned()));
    }
    if shape.media_type.as_ref().is_some_and(|said| said != kind) {
        let said = shape.media_type.unwrap_or_default();
        return Err(wrong(format!("came as {kind:?} and calls itself {said:?}")));
    }
    let (list, image) = (shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some());
    let json = |e: serde_json::Error| wrong(format!("malformed: {e}"));
    match (is_index(kind), is_manifest(kind)) {
        (true, _) if image => Err(wrong("an index must not have layers or a configuration".to_owned())),
        (_, true) if list => Err(wrong("a manifest must not have manifests".to_owned())),
        (true, _) => Ok(Content::Index(serde_json::from_slice(bytes).map_err(json)?)),
        (_, true) => Ok(Content::Manifest(Box::new(serde_json::from_slice(bytes).map_err(json)?))),
        _ => Err(wrong(format!("unexpected media type {kind:?}"))),
    }
}

/// Whether a descriptor in an index is an attestation or the like: it describes another manifest and is no image
/// (BuildKit `docs/attestations/attestation-storage.md`).
pub fn is_attestation(entry: &Descriptor) -> bool {
    let unknown = entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown");
    unknown || entry.annotations.contains_key("vnd.docker.reference.type")
}

/// Chooses the manifest of an index for a platform: the best fitting variant, the first of equals.
pub fn choose<'i>(index: &'i Index, wanted: &Platform) -> Option<&'i Descriptor> {
    let rank = |entry: &Descriptor| match &entry.platform {
        _ if is_attestation(entry) => None,
        // An entry that names no platform may be any; what it is is said by its configuration.
        None => Some(0),
        Some(offered) => fitness(offered, wanted).map(|fit| fit + 1),
    };
    let entries = index.manifests.iter().filter(|entry| is_manifest(&entry.media_type) || is_index(&entry.media_type));
    let ranked = entries.filter_map(|entry| Some((rank(entry)?, entry)));
    // `max_by_key` takes the last of equals; the first counts.
    ranked.rev().max_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// How well an offered platform fits a wanted one (containerd `platforms.Only`): higher is better, none does not fit.
fn fitness(offered: &Platform, wanted: &Platform) -> Option<u32> {
    if offered.os != wanted.os {
        return None;
    }
    let offered_variant = variant(offered);
    let wanted_variant = variant(wanted);
    let number = |v: &str| v.trim_start_matches('v').parse::<u32>().ok();
    if offered.architecture == wanted.architecture {
        return match (number(&offered_variant), number(&wanted_variant)) {
            (Some(o), Some(w)) => (o <= w).then_some(100 + o),
            _ => (offered_variant == wanted_variant || wanted.variant.is_empty()).then_some(100),
        };
    }
    // A 64-bit machine runs the 32-bit images of its family; the exact one is preferred.
    match (wanted.architecture.as_str(), offered.architecture.as_str()) {
        ("amd64", "386") => Some(10),
        ("arm64", "arm") => Some(10 + number(&offered_variant).unwrap_or(0)),
        _ => None,
    }
}

fn variant(platform: &Platform) -> String {
    let default = match platform.architecture.as_str() {
        "amd64" => "v1",
        "arm64" => "v8",
        "arm" => "v7",
        _ => "",
    };
    if platform.variant.is_empty() { default.to_owned() } else { platform.variant.clone() }
}

/// `linux/arm64/v8`, as Docker prints platforms.
pub fn platform_text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn refused(bytes: &str, kind: &str) -> String {
        let document = identify(bytes.as_bytes().to_vec(), kind, "x");
        match document.and_then(|d| d.content()) {
            Err(e) => e.to_string(),
            Ok(content) => panic!("accepted: {content:?}"),
        }
    }

    #[test]
    fn cve_2021_41190_ambiguous_documents_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"config":{{"mediaType":"a","digest":"{ZERO}","size":1}},"layers":[]}}"#
        );
        assert!(refused(&both, media_type::INDEX).contains("must not have layers"));
        assert!(refused(&both, media_type::MANIFEST).contains("must not have manifests"));
        let lying = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::INDEX);
        assert!(refused(&lying, media_type::MANIFEST).contains("calls itself"));
        assert!(refused(r#"{"schemaVersion":2,"layers":[]}"#, "").contains("malformed"));
    }

    #[test]
    fn cve_2023_25153_huge_manifests_are_refused() {
        let huge = format!(r#"{{"schemaVersion":2,"x":"{}"}}"#, "a".repeat(LIMIT));
        assert!(refused(&huge, media_type::MANIFEST).contains("more than"));
        let deep = "[".repeat(200_000);
        assert!(refused(&deep, media_type::MANIFEST).contains("no manifest"));
    }

    #[test]
    fn schema_1_is_refused_with_advice() {
        let text = refused(r#"{"schemaVersion":1,"fsLayers":[]}"#, "application/json");
        assert!(text.contains("please rebuild the image"), "{text}");
    }

    fn entry(os: &str, architecture: &str, variant: &str, n: u8) -> Descriptor {
        let platform = Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Platform::default()
        };
        let digest = Digest::from_sha256([n; 32]);
        Descriptor { platform: Some(platform), ..Descriptor::new(media_type::MANIFEST, digest, 1) }
    }

    #[test]
    fn the_best_platform_is_chosen_and_attestations_never() {
        let index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests: vec![
                entry("unknown", "unknown", "", 0),
                entry("linux", "arm", "v6", 1),
                entry("linux", "arm", "v7", 2),
                entry("linux", "arm64", "", 3),
                entry("linux", "amd64", "", 4),
                entry("linux", "amd64", "v2", 5),
                entry("linux", "386", "", 6),
            ],
            annotations: Default::default(),
        };
        let find = |os: &str, architecture: &str, variant: &str| {
            let wanted = entry(os, architecture, variant, 0).platform.expect("given");
            choose(&index, &wanted).map(|entry| entry.digest.hex()[..2].to_owned())
        };
        assert_eq!(find("linux", "amd64", "").as_deref(), Some("04"));
        assert_eq!(find("linux", "amd64", "v3").as_deref(), Some("05"));
        assert_eq!(find("linux", "arm", "v7").as_deref(), Some("02"));
        assert_eq!(find("linux", "arm", "v6").as_deref(), Some("01"));
        assert_eq!(find("linux", "arm64", "v8").as_deref(), Some("03"));
        assert_eq!(find("linux", "s390x", ""), None);
        assert_eq!(find("unknown", "unknown", ""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(document) = identify(bytes, "", "x") {
                let _ = document.content();
            }
        }
    }
}
