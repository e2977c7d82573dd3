//! Build script of the programs that are started once per container or command: they are linked to a fixed address.
//!
//! A position-independent program relocates a quarter of a megabyte of tables at each start, which dirties as many pages: of
//! the 139 page faults of `docker --version` 84 came from that, and 80 kB of each shim's memory. What is given up is the random
//! address of the program itself (heap, stack and mappings keep theirs); these programs are safe Rust and read foreign bytes
//! in no other language. dockerd, whose zstd decoder is C, stays position-independent.

fn main() {
    println!("cargo::rerun-if-changed=../fixed.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        println!("cargo::rustc-link-arg-bins=-static");
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
