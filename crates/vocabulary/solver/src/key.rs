//! Keys of the cache: what an operation does, apart from what it is done to.

use wharf_proto_buildkit::Message;
use wharf_proto_buildkit::pb;

/// A SHA-256 over tagged parts, so that no two different lists of parts look alike.
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds bytes as they are: for content whose length is a part of its own.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// `sha256:…`.
    pub fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `sha256:…` of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The key of what an operation does. What must not matter is left out: which vertices its inputs are, proxies, the
/// lines it was written on.
pub fn operation_key(op: &pb::Op) -> String {
    let mut op = op.clone();
    op.inputs.clear();
    op.constraints = None;
    match &mut op.op {
        Some(pb::OpOp::Exec(exec)) => {
            if let Some(meta) = &mut exec.meta {
                meta.proxy_env = None;
                meta.cgroup_parent.clear();
            }
            for mount in &mut exec.mounts {
                // Where a cache is kept does not change what is made with it.
                if let Some(cache) = &mut mount.cache_opt {
                    cache.id.clear();
                }
            }
        }
        Some(pb::OpOp::File(_)) => op.platform = None,
        _ => {}
    }
    digest_of(&op.encode_to_vec())
}
