//! Making definitions.

use std::collections::{BTreeMap, HashSet};

use wharf_proto_buildkit::Message;
use wharf_proto_buildkit::pb;

use crate::graph::Output;
use crate::key::digest_of;

/// Collects operations into a definition.
#[derive(Default)]
pub struct Maker {
    ops: Vec<Vec<u8>>,
    known: HashSet<String>,
    metadata: BTreeMap<String, pb::OpMetadata>,
    locations: BTreeMap<String, pb::Locations>,
}

impl Maker {
    /// Adds an operation; the same operation twice is one vertex.
    pub fn add(&mut self, op: &pb::Op, metadata: pb::OpMetadata, lines: Option<(usize, usize)>) -> String {
        let bytes = op.encode_to_vec();
        let digest = digest_of(&bytes);
        if self.known.insert(digest.clone()) {
            self.ops.push(bytes);
            self.metadata.insert(digest.clone(), metadata);
        }
        if let Some((first, last)) = lines {
            let position = |line: usize| Some(pb::Position { line: i32::try_from(line).unwrap_or(0), character: 0 });
            let range = pb::Range { start: position(first), end: position(last) };
            let entry = self.locations.entry(digest.clone()).or_default();
            entry.locations.push(pb::Location { source_index: 0, ranges: vec![range] });
        }
        digest
    }

    /// The definition of one output.
    pub fn finish(&self, output: &Output, file: &str, text: &[u8]) -> pb::Definition {
        let input = pb::Input { digest: output.digest.clone(), index: i64::try_from(output.index).unwrap_or(0) };
        let last = pb::Op { inputs: vec![input], ..pb::Op::default() };
        let mut def = self.ops.clone();
        def.push(last.encode_to_vec());
        let info = pb::SourceInfo {
            filename: file.to_owned(),
            data: text.to_vec(),
            language: "Dockerfile".to_owned(),
            ..pb::SourceInfo::default()
        };
        let source = pb::Source { locations: self.locations.clone(), infos: vec![info] };
        pb::Definition { def, metadata: self.metadata.clone(), source: Some(source) }
    }
}

/// Metadata with a name that clients show.
pub fn describe(name: impl Into<String>) -> pb::OpMetadata {
    let description = [("llb.customname".to_owned(), name.into())].into();
    pb::OpMetadata { description, ..pb::OpMetadata::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Graph, GraphError};

    fn source(name: &str) -> pb::Op {
        let source = pb::SourceOp { identifier: name.to_owned(), ..pb::SourceOp::default() };
        pb::Op { op: Some(pb::OpOp::Source(source)), ..pb::Op::default() }
    }

    #[test]
    fn what_is_made_is_read_again() {
        let mut maker = Maker::default();
        let digest = maker.add(&source("local://context"), describe("load"), Some((1, 1)));
        assert_eq!(maker.add(&source("local://context"), describe("load"), None), digest);
        let output = Output { digest: digest.clone(), index: 0 };
        let graph = Graph::of(&maker.finish(&output, "Dockerfile", b"FROM x")).expect("valid");
        assert_eq!(graph.result, Some(output));
        assert_eq!(graph.vertex(&digest).expect("there").name(), "load");
    }

    #[test]
    fn definitions_that_name_what_is_not_there_are_refused() {
        let mut maker = Maker::default();
        let digest = maker.add(&source("local://context"), describe("load"), None);
        let far = Output { digest, index: 3 };
        assert!(matches!(Graph::of(&maker.finish(&far, "", b"")), Err(GraphError::Index { .. })));
        let lost = Output { digest: "sha256:0".to_owned(), index: 0 };
        assert!(matches!(Graph::of(&maker.finish(&lost, "", b"")), Err(GraphError::Missing(_))));
        let junk = pb::Definition { def: vec![vec![0xff; 3]], ..pb::Definition::default() };
        assert!(matches!(Graph::of(&junk), Err(GraphError::Operation(_))));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_definitions_never_panic(def in proptest::collection::vec(proptest::collection::vec(0u8..255, 0..40), 0..4)) {
            let _ = Graph::of(&pb::Definition { def, ..pb::Definition::default() });
        }
    }
}
