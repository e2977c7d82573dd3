//! Repository checks and developer tasks.

fn main() {}
