//! Images for the registry, made in memory.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Registry;

/// A layer as it is sent, and the digest of what it unpacks to.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Media type.
    pub kind: &'static str,
    /// The blob.
    pub blob: Vec<u8>,
    /// Digest of the plain archive.
    pub diff_id: String,
}

/// What was put into a registry.
#[derive(Clone, Debug)]
pub struct Seeded {
    /// Digest of the manifest.
    pub manifest: String,
    /// Size of the manifest.
    pub size: usize,
    /// Digest of the configuration.
    pub config: String,
    /// Digests of the layers' blobs.
    pub layers: Vec<String>,
}

/// `sha256:…` of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A tar archive of files.
///
/// # Panics
/// Never: it is written to memory.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        archive.append_data(&mut header, name, *bytes).expect("memory takes it");
    }
    archive.into_inner().expect("memory takes it")
}

/// A gzip'ed layer of an archive.
///
/// # Panics
/// Never: it is written to memory.
pub fn layer_of(tar: &[u8]) -> Layer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).expect("memory takes it");
    let blob = encoder.finish().expect("memory takes it");
    Layer { kind: "application/vnd.oci.image.layer.v1.tar+gzip", blob, diff_id: digest_of(tar) }
}

/// A layer of one file with bytes that no compression makes smaller, the same for the same name.
pub fn layer(name: &str, size: usize) -> Layer {
    let mut state =
        name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |s, b| (s ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    layer_of(&tar_of(&[(name, &bytes)]))
}

impl Registry {
    /// Puts a blob into a repository.
    pub fn put_blob(&self, repository: &str, bytes: Vec<u8>) -> String {
        let digest = digest_of(&bytes);
        self.content().blobs.insert((repository.to_owned(), digest.clone()), Arc::new(bytes));
        digest
    }

    /// Puts a manifest or index into a repository, by its digest and under a tag.
    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, document: &Value) -> String {
        let bytes = document.to_string().into_bytes();
        let digest = digest_of(&bytes);
        let mut content = self.content();
        for name in [digest.as_str(), tag] {
            if !name.is_empty() {
                content.manifests.insert((repository.to_owned(), name.to_owned()), (kind.to_owned(), bytes.clone()));
            }
        }
        digest
    }

    /// Makes an image of layers for a platform (`linux/amd64`) and puts it into a repository.
    pub fn put_image(&self, repository: &str, tag: &str, architecture: &str, layers: &[Layer]) -> Seeded {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/busybox", "true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "created": "2024-01-01T00:00:00Z"});
        let config = config.to_string().into_bytes();
        let config_size = config.len();
        let config = self.put_blob(repository, config);
        let blobs: Vec<String> = layers.iter().map(|layer| self.put_blob(repository, layer.blob.clone())).collect();
        let described: Vec<Value> = layers
            .iter()
            .zip(&blobs)
            .map(|(layer, digest)| json!({"mediaType": layer.kind, "digest": digest, "size": layer.blob.len()}))
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let document = json!({"schemaVersion": 2, "mediaType": kind, "layers": described,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size}});
        let manifest = self.put_manifest(repository, tag, kind, &document);
        Seeded { manifest, size: document.to_string().len(), config, layers: blobs }
    }
}
