//! Directories by number.
