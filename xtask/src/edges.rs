//! Crate edges: tiers point downwards only, synchronous crates stay synchronous, forbidden edges stay absent.

use crate::workspace::{Member, Workspace};

/// Packages that mean "an async runtime is in here".
const ASYNC_RUNTIMES: &[&str] = &["tokio", "async-std", "smol", "hyper"];

/// Whether `place` is meant by `pattern` (`tier/name` or `tier/*`).
fn matches(pattern: &str, place: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == place, |tier| place.starts_with(tier))
}

/// Lists every edge that breaks a rule.
pub fn check(workspace: &Workspace) -> Vec<String> {
    let rank = |place: &str| workspace.rules.tiers.iter().position(|t| place.split('/').next() == Some(t));
    let mut findings = Vec::new();
    for (name, member) in &workspace.members {
        let Some(own) = rank(&member.place) else { continue };
        for dependency in &member.direct {
            let Some(place) = workspace.place(dependency) else { continue };
            match rank(place) {
                Some(other) if other <= own => {}
                _ => findings.push(format!("{name} ({}) depends on {place}, which is in a higher tier", member.place)),
            }
        }
        findings.extend(asynchrony(workspace, name, member));
        findings.extend(forbidden(workspace, name, member));
    }
    findings
}

fn asynchrony(workspace: &Workspace, name: &str, member: &Member) -> Option<String> {
    let synchronous = workspace.rules.synchronous.iter().any(|p| matches(p, &member.place));
    let runtime = ASYNC_RUNTIMES.iter().find(|r| member.reached.contains(**r))?;
    synchronous.then(|| format!("{name} ({}) must be synchronous and reaches {runtime}", member.place))
}

fn forbidden(workspace: &Workspace, name: &str, member: &Member) -> Vec<String> {
    let rules = workspace.rules.forbid.iter().filter(|rule| matches(&rule.from, &member.place));
    let mut findings = Vec::new();
    for rule in rules {
        for dependency in &member.direct {
            let place = workspace.place(dependency).unwrap_or(dependency);
            if rule.to.iter().any(|to| matches(to, place)) {
                findings.push(format!("{name} ({}) depends on {place}: {}", member.place, rule.why));
            }
        }
    }
    findings
}
