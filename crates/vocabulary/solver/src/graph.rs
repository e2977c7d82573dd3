//! A definition, checked: every input exists and lies in bounds. Cycles are impossible, since a vertex names its inputs
//! by their digests.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_proto_buildkit::Message;
use wharf_proto_buildkit::pb;

use crate::key::digest_of;

/// Vertices of one definition at most, as a bound on memory and time.
const VERTICES: usize = 100_000;

/// A definition that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An operation is no protobuf message.
    #[error("failed to parse llb proto op: {0}")]
    Operation(String),
    /// An input is not in the definition.
    #[error("invalid missing input digest {0}")]
    Missing(String),
    /// An output number that the operation cannot have.
    #[error("invalid input index {index} of {digest}")]
    Index {
        /// The vertex.
        digest: String,
        /// The number.
        index: i64,
    },
    /// The last vertex does not name the result.
    #[error("invalid LLB with {0} vertexes: the last one must have exactly one input")]
    Last(usize),
    /// Too many vertices.
    #[error("the definition has more than {VERTICES} vertices")]
    Size,
}

/// One output of a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Output {
    /// The vertex.
    pub digest: String,
    /// Which of its outputs.
    pub index: usize,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// `sha256:…` of the operation's bytes.
    pub digest: String,
    /// The operation.
    pub op: pb::Op,
    /// What clients are shown, and how it may be cached.
    pub metadata: pb::OpMetadata,
    /// Inputs, checked.
    pub inputs: Vec<Output>,
}

impl Vertex {
    /// What clients are shown.
    pub fn name(&self) -> String {
        if let Some(name) = self.metadata.description.get("llb.customname") {
            return name.clone();
        }
        match &self.op.op {
            Some(pb::OpOp::Source(source)) => source.identifier.clone(),
            Some(pb::OpOp::Exec(exec)) => exec.meta.as_ref().map(|m| m.args.join(" ")).unwrap_or_default(),
            Some(pb::OpOp::File(file)) => file_name(file),
            Some(pb::OpOp::Build(_)) => "build".to_owned(),
            Some(pb::OpOp::Merge(_)) => "merge".to_owned(),
            Some(pb::OpOp::Diff(_)) => "diff".to_owned(),
            _ => "unknown".to_owned(),
        }
    }
}

fn file_name(file: &pb::FileOp) -> String {
    let names = file.actions.iter().map(|a| match &a.action {
        Some(pb::FileActionAction::Copy(c)) => format!("copy {} {}", c.src, c.dest),
        Some(pb::FileActionAction::Mkfile(m)) => format!("mkfile {}", m.path),
        Some(pb::FileActionAction::Mkdir(m)) => format!("mkdir {}", m.path),
        Some(pb::FileActionAction::Rm(r)) => format!("rm {}", r.path),
        Some(pb::FileActionAction::Symlink(s)) => format!("symlink {} {}", s.oldpath, s.newpath),
        None => String::new(),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// A checked definition.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    vertices: HashMap<String, Arc<Vertex>>,
    /// What is to be made; nothing for an empty definition, which is an empty file system.
    pub result: Option<Output>,
    /// Source files and which vertices come from which lines.
    pub source: pb::Source,
}

impl Graph {
    /// Reads a definition.
    ///
    /// # Errors
    /// [`GraphError`].
    pub fn of(definition: &pb::Definition) -> Result<Self, GraphError> {
        if definition.def.len() > VERTICES {
            return Err(GraphError::Size);
        }
        let mut graph = Self { source: definition.source.clone().unwrap_or_default(), ..Self::default() };
        let mut last = None;
        for bytes in &definition.def {
            let op = pb::Op::decode(bytes.as_slice()).map_err(|e| GraphError::Operation(e.to_string()))?;
            let digest = digest_of(bytes);
            let metadata = definition.metadata.get(&digest).cloned().unwrap_or_default();
            let input = |input: &pb::Input| Output {
                digest: input.digest.clone(),
                index: usize::try_from(input.index).unwrap_or(usize::MAX),
            };
            let inputs: Vec<Output> = op.inputs.iter().map(input).collect();
            last = Some(digest.clone());
            graph.vertices.insert(digest.clone(), Arc::new(Vertex { digest, op, metadata, inputs }));
        }
        let Some(last) = last else { return Ok(graph) };
        let Some(last) = graph.vertices.remove(&last) else { return Ok(graph) };
        match (last.inputs.as_slice(), &last.op.op) {
            ([only], None) => graph.result = Some(only.clone()),
            _ => return Err(GraphError::Last(definition.def.len())),
        }
        graph.check()?;
        Ok(graph)
    }

    fn check(&self) -> Result<(), GraphError> {
        let inputs = self.vertices.values().flat_map(|v| &v.inputs).chain(&self.result);
        for input in inputs {
            let vertex = self.vertices.get(&input.digest).ok_or_else(|| GraphError::Missing(input.digest.clone()))?;
            if input.index >= outputs(&vertex.op) {
                let index = i64::try_from(input.index).unwrap_or(-1);
                return Err(GraphError::Index { digest: input.digest.clone(), index });
            }
        }
        for vertex in self.vertices.values() {
            let count = i64::try_from(vertex.inputs.len()).unwrap_or(i64::MAX);
            if let Some(index) = used_inputs(&vertex.op).into_iter().find(|i| *i < -1 || *i >= count) {
                return Err(GraphError::Index { digest: vertex.digest.clone(), index });
            }
        }
        Ok(())
    }

    /// A vertex.
    pub fn vertex(&self, digest: &str) -> Option<&Arc<Vertex>> {
        self.vertices.get(digest)
    }

    /// All vertices.
    pub fn vertices(&self) -> impl Iterator<Item = &Arc<Vertex>> {
        self.vertices.values()
    }
}

/// How many outputs an operation has.
fn outputs(op: &pb::Op) -> usize {
    let numbers: Vec<i64> = match &op.op {
        Some(pb::OpOp::Exec(exec)) => exec.mounts.iter().map(|m| m.output).collect(),
        Some(pb::OpOp::File(file)) => file.actions.iter().map(|a| a.output).collect(),
        _ => return 1,
    };
    numbers.into_iter().max().and_then(|n| usize::try_from(n + 1).ok()).unwrap_or(0)
}

/// The numbers by which an operation names its inputs. A file operation counts its own earlier actions after them.
fn used_inputs(op: &pb::Op) -> Vec<i64> {
    match &op.op {
        Some(pb::OpOp::Exec(exec)) => exec.mounts.iter().map(|m| m.input).collect(),
        Some(pb::OpOp::Merge(merge)) => merge.inputs.iter().map(|i| i.input).collect(),
        Some(pb::OpOp::Diff(diff)) => {
            [diff.lower.as_ref().map(|l| l.input), diff.upper.as_ref().map(|u| u.input)].into_iter().flatten().collect()
        }
        _ => Vec::new(),
    }
}
