//! Definitions of clients: a graph is made of what holds together, and nothing else gets through.
#![no_main]

use libfuzzer_sys::fuzz_target;

use wharf_proto_buildkit::{Message, pb};
use wharf_solver::{Graph, operation_key};

fuzz_target!(|bytes: &[u8]| {
    let Ok(definition) = pb::Definition::decode(bytes) else { return };
    if let Ok(graph) = Graph::of(&definition)
        && let Some(result) = &graph.result
    {
        let vertex = graph.vertex(&result.digest).expect("a graph has its result");
        for input in &vertex.inputs {
            assert!(graph.vertex(&input.digest).is_some(), "a graph has what its vertices stand on");
        }
        assert!(!operation_key(&vertex.op).is_empty());
    }
});
