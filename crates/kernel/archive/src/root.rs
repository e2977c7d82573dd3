//! A tree in which untrusted paths are resolved.

use std::os::fd::OwnedFd;

/// A directory beneath which paths are opened; no path leaves it, whatever links it goes through.
#[derive(Debug)]
pub struct Root(#[allow(dead_code)] OwnedFd);
