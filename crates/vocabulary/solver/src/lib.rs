//! The build graph: LLB definitions as checked vertices, how to make them, and the keys of the cache.

mod graph;
mod key;
mod make;

pub use graph::{Graph, GraphError, Output, Vertex};
pub use key::{Hasher, digest_of, operation_key};
pub use make::{Maker, describe};
