//! Laying trees over one another, and taking one from another.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use wharf_error::Chain;
use wharf_proto_buildkit::pb;
use wharf_snapshot::Snapshot;

use crate::BuildError;
use crate::copy::{CopyOptions, copy};
use crate::job::{Files, Job, Value};
use crate::tree::Tree;

/// Carries out a merge or a difference.
///
/// # Errors
/// [`BuildError`].
pub fn carry_out(job: &Arc<Job>, op: &pb::Op, inputs: &[Value]) -> Result<Vec<Snapshot>, BuildError> {
    let value = |index: i64| match usize::try_from(index) {
        Err(_) => Ok(Value::empty()),
        Ok(n) => inputs.get(n).cloned().ok_or_else(|| BuildError::invalid(format!("invalid input index {index}"))),
    };
    match &op.op {
        Some(pb::OpOp::Merge(merge)) => {
            let mut all = merge.inputs.iter().map(|i| value(i.input));
            let first = all.next().unwrap_or_else(|| Ok(Value::empty()))?;
            let base = match &first.files {
                Files::Context(_) => Some(as_snapshot(job, &first)?),
                _ => first.snapshot().cloned(),
            };
            let rest = all.collect::<Result<Vec<_>, _>>()?;
            lay(job, base.as_ref(), |target| rest.iter().try_for_each(|v| apply(job, target, v, 0)))
        }
        Some(pb::OpOp::Diff(diff)) => {
            let lower = value(diff.lower.as_ref().map_or(-1, |l| l.input))?;
            let upper = value(diff.upper.as_ref().map_or(-1, |u| u.input))?;
            let chain = |v: &Value| v.snapshot().map(numbers).unwrap_or_default();
            let (low, high) = (chain(&lower), chain(&upper));
            if !high.starts_with(&low) {
                return Err(BuildError::invalid("diff of trees that do not stand on one another is not supported"));
            }
            lay(job, None, |target| apply(job, target, &upper, low.len()))
        }
        _ => Err(BuildError::invalid("not a merge")),
    }
}

/// The layers of a snapshot, lowest first.
fn numbers(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.lowers.iter().rev().copied().chain([snapshot.number]).collect()
}

fn lay(
    job: &Job,
    base: Option<&Snapshot>,
    fill: impl FnOnce(&Snapshot) -> Result<(), BuildError>,
) -> Result<Vec<Snapshot>, BuildError> {
    let snapshots = &job.builder.parts.snapshots;
    let target = snapshots.prepare(base)?;
    if let Err(e) = fill(&target) {
        // What stays has no owner and goes when the daemon starts.
        let _ = snapshots.remove(&target);
        return Err(e);
    }
    Ok(vec![snapshots.commit(target)?])
}

/// Extracts the layers of a value, without the lowest `skip`, into a prepared snapshot.
fn apply(job: &Job, target: &Snapshot, value: &Value, skip: usize) -> Result<(), BuildError> {
    let snapshots = &job.builder.parts.snapshots;
    if let Files::Context(context) = &value.files {
        let to = Tree::mount(&snapshots.mounts(target, false)?)?;
        let options = CopyOptions { contents: true, replace: true, ..CopyOptions::default() };
        return copy(context.tree(), Path::new("/"), &to, "/", &options)
            .map_err(|e| BuildError::invalid(Chain(&e).to_string()));
    }
    let Some(top) = value.snapshot() else { return Ok(()) };
    let chain = numbers(top);
    for (i, number) in chain.iter().enumerate().skip(skip) {
        let lowers = chain[..i].iter().rev().copied().collect();
        let layer = Snapshot { number: *number, lowers, writable: false };
        let difference = snapshots.difference(&layer)?;
        let (reader, mut writer) = std::io::pipe()?;
        let packing = std::thread::scope(|scope| {
            let packing = scope.spawn(move || difference.pack(&mut writer));
            let goal = snapshots.target(target)?;
            let extracted =
                wharf_archive::extract(&mut BufReader::new(reader), goal.root, &goal.parents, goal.whiteouts);
            let packed = packing.join().map_err(|_| BuildError::cancelled())?;
            packed.map_err(|e| BuildError::system("read a layer", &e))?;
            extracted.map_err(|e| BuildError::system("lay a layer over another", &e)).map(drop)
        });
        packing?;
    }
    Ok(())
}

/// A context as a snapshot, for what stands upon it.
///
/// # Errors
/// [`BuildError`].
pub fn as_snapshot(job: &Job, value: &Value) -> Result<Snapshot, BuildError> {
    let key = format!("snapshot of {}#0", value.key);
    if let Some(node) = job.builder.cache.find(&key) {
        return Ok(node.snapshot.clone());
    }
    let snapshots = &job.builder.parts.snapshots;
    let prepared = snapshots.prepare(None)?;
    let to = Tree::mount(&snapshots.mounts(&prepared, false)?)?;
    let options = CopyOptions { contents: true, ..CopyOptions::default() };
    copy(&job.view(value)?, Path::new("/"), &to, "/", &options)
        .map_err(|e| BuildError::invalid(Chain(&e).to_string()))?;
    let snapshot = snapshots.commit(prepared)?;
    let node =
        job.builder.cache.add(snapshot, vec![key], "local source", "source.local", wharf_types::Timestamp::now())?;
    Ok(node.snapshot.clone())
}
