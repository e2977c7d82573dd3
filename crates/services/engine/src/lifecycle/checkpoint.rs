//! Checkpoints: a container's processes written to files by CRIU, listed and removed. Starting from one is in `start`.
//!
//! ```text
//! <data-root>/containers/<id>/checkpoints/<name>/    CRIU's images and descriptors.json, with the container's life
//! ```

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_error::Chain;

use super::Lifecycle;
use crate::EngineError;
use crate::container::{Container, Status};
use crate::creator::tell;

const FOLDER: &str = "checkpoints";

/// Names that a checkpoint may have (moby `daemon/names`): `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl Lifecycle {
    /// Where a container's checkpoints are: below its folder, or where the client says.
    fn checkpoints(&self, container: &Container, dir: &str) -> PathBuf {
        match dir {
            "" => self.config.container_folder(&container.id).join(FOLDER),
            dir => PathBuf::from(dir),
        }
    }

    /// The images of a checkpoint that is in the container's own folder.
    pub(super) fn checkpoint_images(&self, container: &Container, checkpoint: &str) -> Option<PathBuf> {
        let path = self.checkpoints(container, "").join(checkpoint);
        (is_name(checkpoint) && path.is_dir()).then_some(path)
    }

    /// Writes a running container to files in a new folder; unless it is to run on, it is killed.
    pub async fn checkpoint(
        self: &Arc<Self>,
        name: &str,
        checkpoint: &str,
        dir: &str,
        exit: bool,
    ) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        // Nobody removes or stops it meanwhile; what ends by it is noticed without.
        let _guard = container.lock.lock().await;
        let view = container.view();
        let task = match (view.state.status, &view.task) {
            (Status::Running | Status::Paused, Some(task)) => task.clone(),
            _ => return Err(EngineError::NotRunning(container.id.to_string())),
        };
        if !is_name(checkpoint) {
            return Err(EngineError::CheckpointName(checkpoint.to_owned()));
        }
        let images = self.checkpoints(&container, dir).join(checkpoint);
        make_new(&images, name, checkpoint)?;
        let dumped = task.shim.checkpoint(&images, exit).await;
        if let Err(error) = dumped {
            // Ours, made above: it was not there before.
            let _ = std::fs::remove_dir_all(&images);
            let log = self.shims.folder(&container.id).join("criu-dump.log");
            let reason = Chain(&error).to_string();
            return Err(EngineError::Checkpoint { name: name.to_owned(), reason, log });
        }
        tell(&self.events, &view.record, "checkpoint", &[]);
        Ok(())
    }

    /// The names of a container's checkpoints.
    pub fn list_checkpoints(&self, name: &str, dir: &str) -> Result<Vec<String>, EngineError> {
        let container = self.registry.find(name)?;
        let folder = self.checkpoints(&container, dir);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && dir.is_empty() => return Ok(Vec::new()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                // Docker's, without a name as well.
                return Err(EngineError::NoCheckpoint { name: name.to_owned(), checkpoint: String::new() });
            }
            Err(source) => return Err(EngineError::File { operation: "open", path: folder, source }),
        };
        let folders = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        let mut names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a checkpoint.
    pub async fn remove_checkpoint(&self, name: &str, checkpoint: &str, dir: &str) -> Result<(), EngineError> {
        let container = self.registry.find(name)?;
        // Not while it is written or read.
        let _guard = container.lock.lock().await;
        let path = self.checkpoints(&container, dir).join(checkpoint);
        // A name with slashes would reach folders that are no checkpoints.
        let found = if is_name(checkpoint) { std::fs::symlink_metadata(&path).ok() } else { None };
        match found {
            Some(found) if found.is_dir() => {
                std::fs::remove_dir_all(&path).map_err(|source| EngineError::File { operation: "remove", path, source })
            }
            Some(_) => Err(EngineError::NoFolder(path)),
            None => Err(EngineError::NoCheckpoint { name: name.to_owned(), checkpoint: checkpoint.to_owned() }),
        }
    }
}

/// Makes the folder of a new checkpoint.
fn make_new(path: &Path, name: &str, checkpoint: &str) -> Result<(), EngineError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Err(EngineError::CheckpointExists { name: name.to_owned(), checkpoint: checkpoint.to_owned() });
        }
        Ok(_) => return Err(EngineError::NoFolder(path.to_owned())),
        Err(_) => {}
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| EngineError::File {
        operation: "mkdir",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_of_checkpoints_are_dockers() {
        for good in ["cp1", "a.b", "0_-"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", "..", "../x", "a/b", ".a", "ä1", "a b"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
