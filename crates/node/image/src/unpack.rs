//! Unpacking layers into snapshots by chain id.
