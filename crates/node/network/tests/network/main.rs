//! The network crate against the kernel, in private namespaces. Runs as root; leaves nothing on the host.

mod iptables;
mod lab;
mod life;
mod ports;
mod reach;
mod reach6;
