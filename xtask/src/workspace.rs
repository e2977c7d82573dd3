//! What `cargo metadata`, git and `architecture.toml` say about the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

/// The rules of `architecture.toml`.
#[derive(Deserialize)]
pub struct Rules {
    /// Tiers from the top of the dependency order downwards: a crate depends only on its own tier and earlier ones.
    pub tiers: Vec<String>,
    /// Crates (`tier/name`, `tier/*`) that may not reach an async runtime.
    pub synchronous: Vec<String>,
    /// Crates that may contain `unsafe`.
    #[serde(rename = "unsafe")]
    pub may_be_raw: Vec<String>,
    /// Edges that no tier rule expresses.
    pub forbid: Vec<Forbidden>,
}

/// One forbidden edge.
#[derive(Deserialize)]
pub struct Forbidden {
    /// `tier/name` of the crate that must not depend …
    pub from: String,
    /// … on these: `tier/name`, `tier/*`, or the name of an outside package.
    pub to: Vec<String>,
    /// The reason, shown with a finding.
    pub why: String,
}

/// A crate of ours.
pub struct Member {
    /// `tier/name`, e.g. `kernel/sys`; `bins/docker`; `xtask`.
    pub place: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Package names it names as normal or build dependencies.
    pub direct: BTreeSet<String>,
    /// Package names it reaches, itself excluded, through normal dependencies.
    pub reached: BTreeSet<String>,
}

/// Everything the checks look at.
pub struct Workspace {
    /// The top folder.
    pub root: PathBuf,
    /// The rules.
    pub rules: Rules,
    /// Our crates by package name.
    pub members: BTreeMap<String, Member>,
    /// Licence expressions of outside packages by `name version`.
    pub licences: BTreeMap<String, Option<String>>,
    /// How many packages the lock file resolves to.
    pub packages: usize,
    /// Files git tracks or would track, relative to the root.
    pub files: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    workspace_root: PathBuf,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

fn output(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let done = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if !done.status.success() {
        return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr)));
    }
    Ok(done.stdout)
}

impl Workspace {
    /// Asks cargo and git.
    pub fn read() -> Result<Self, String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let text = output(&cargo, &["metadata", "--format-version", "1", "--locked"])?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| format!("cargo metadata: {e}"))?;
        let root = metadata.workspace_root.clone();
        let rules =
            std::fs::read_to_string(root.join("architecture.toml")).map_err(|e| format!("architecture.toml: {e}"))?;
        let rules = toml::from_str(&rules).map_err(|e| format!("architecture.toml: {e}"))?;
        let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
        let files = String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect();
        let names: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let mut members = BTreeMap::new();
        let mut licences = BTreeMap::new();
        for package in &metadata.packages {
            if !metadata.workspace_members.contains(&package.id) {
                licences.insert(format!("{} {}", package.name, package.version), package.license.clone());
                continue;
            }
            let folder = package.manifest_path.parent().map(PathBuf::from).unwrap_or_default();
            let relative = folder.strip_prefix(&root).unwrap_or(&folder).to_string_lossy().into_owned();
            let place = relative.strip_prefix("crates/").unwrap_or(&relative).to_owned();
            let direct = edges_of(&metadata.resolve, &package.id, &["", "build"]);
            let reached = reach(&metadata.resolve, &package.id);
            let named = |ids: BTreeSet<String>| {
                ids.iter().filter_map(|id| names.get(id.as_str())).map(|p| p.name.clone()).collect()
            };
            members
                .insert(package.name.clone(), Member { place, folder, direct: named(direct), reached: named(reached) });
        }
        Ok(Self { root, rules, members, licences, packages: metadata.packages.len(), files })
    }

    /// The member's place if `package` is one of ours.
    pub fn place(&self, package: &str) -> Option<&str> {
        self.members.get(package).map(|m| m.place.as_str())
    }
}

/// The dependencies of one package, of the given kinds (`""` is a normal one).
fn edges_of(resolve: &Resolve, id: &str, kinds: &[&str]) -> BTreeSet<String> {
    let wanted = |d: &&Dependency| d.dep_kinds.iter().any(|k| kinds.contains(&k.kind.as_deref().unwrap_or("")));
    let node = resolve.nodes.iter().find(|n| n.id == id);
    node.into_iter().flat_map(|n| n.deps.iter().filter(wanted).map(|d| d.pkg.clone())).collect()
}

fn reach(resolve: &Resolve, id: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![id.to_owned()];
    while let Some(id) = next.pop() {
        for dependency in edges_of(resolve, &id, &[""]) {
            if seen.insert(dependency.clone()) {
                next.push(dependency);
            }
        }
    }
    seen
}
