//! The use cases: containers, execs, images, networks, volumes, events and recovery, without HTTP and without netlink.

pub mod events;
pub mod filter;
pub mod names;
