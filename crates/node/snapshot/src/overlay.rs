//! Layers by overlayfs (Documentation/filesystems/overlayfs.rst): a snapshot's own directory above those below it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_string, fsopen};
use wharf_archive::{Difference, Form, Whiteouts};
use wharf_sys::quota::{limit_project, set_project};
use wharf_types::Mount;

use crate::directory::{Numbered, committed, failed, prepared};
use crate::{Snapshot, SnapshotError, Snapshotter, Target, Trash, Usage, stack};

const NAME: &str = "overlayfs";

/// The overlayfs driver.
pub struct Overlay {
    numbered: Numbered,
    /// Options that hold for every mount: features that would make layers unusable to others, switched off where the
    /// module has them at all.
    fixed: Vec<String>,
    /// Whether the file system counts projects (ext4 and XFS, mounted with `prjquota`); asked when it is first needed.
    projects: OnceLock<bool>,
}

/// The project of directory 0. Others that use projects on the same file system count from 1.
const PROJECTS: u32 = 0x5748_0000;

impl Overlay {
    /// Opens the driver below the data root and tries a mount, which nobody gets to see, to know that it works.
    ///
    /// # Errors
    /// [`SnapshotError::Unsupported`], [`SnapshotError::DataRoot`], [`SnapshotError::Directory`].
    pub fn open(data_root: &Path, trash: Arc<Trash>) -> Result<Self, SnapshotError> {
        let numbered = Numbered::open(data_root, "overlay", trash)?;
        let overlay = Self { numbered, fixed: fixed_options(), projects: OnceLock::new() };
        let lower = overlay.prepare(None)?;
        let lower = overlay.commit(lower)?;
        let upper = overlay.prepare(Some(&lower))?;
        let tried = overlay.probe(&upper);
        overlay.remove(&upper)?;
        overlay.remove(&lower)?;
        match tried {
            Ok(()) => Ok(overlay),
            Err(e) => {
                let path = overlay.numbered.folder().to_owned();
                Err(SnapshotError::Unsupported { driver: NAME, path, source: e.into() })
            }
        }
    }

    /// Makes the file system of a mount without mounting it anywhere.
    fn probe(&self, snapshot: &Snapshot) -> Result<(), Errno> {
        let context = fsopen(NAME_IN_KERNEL, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for option in self.options(snapshot) {
            let (key, value) = option.split_once('=').unwrap_or((&option, ""));
            fsconfig_set_string(&context, key, value)?;
        }
        fsconfig_create(&context)
    }

    /// These directories as one tree, nearest first.
    fn stacked<'n>(&self, numbers: impl Iterator<Item = &'n u64>) -> Result<OwnedFd, SnapshotError> {
        let layers = numbers.map(|number| self.numbered.open_content(*number));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        stack(&layers).map_err(|e| failed("stack the layers in", self.numbered.folder(), e.into()))
    }

    fn options(&self, snapshot: &Snapshot) -> Vec<String> {
        let content = |number: &u64| self.numbered.content(*number).display().to_string();
        let mut options = self.fixed.clone();
        options.push(format!("workdir={}", self.numbered.path(snapshot.number).join("work").display()));
        options.push(format!("upperdir={}", content(&snapshot.number)));
        options.push(format!("lowerdir={}", snapshot.lowers.iter().map(content).collect::<Vec<_>>().join(":")));
        options
    }
}

const NAME_IN_KERNEL: &str = "overlay";

/// `index`, `metacopy` and `redirect_dir` would write attributes into the upper layer that make it wrong to copy, to
/// mount elsewhere or to read as a difference. Modules without a parameter do not know the option either.
fn fixed_options() -> Vec<String> {
    let parameters = Path::new("/sys/module/overlay/parameters");
    let known = ["index", "metacopy", "redirect_dir"].iter().filter(|name| parameters.join(name).exists());
    known.map(|name| format!("{name}=off")).collect()
}

impl Snapshotter for Overlay {
    fn name(&self) -> &'static str {
        NAME
    }

    fn stacks(&self) -> bool {
        true
    }

    fn prepare(&self, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        let mut lowers = Vec::new();
        if let Some(parent) = parent {
            committed(parent)?;
            lowers.push(parent.number);
            lowers.extend(&parent.lowers);
        }
        let number = self.numbered.make(parent.is_none(), &[("fs", 0o755), ("work", 0o711)])?;
        self.numbered.dress(number, parent)?;
        Ok(Snapshot { number, lowers, writable: true })
    }

    fn mounts(&self, snapshot: &Snapshot, volatile: bool) -> Result<Vec<Mount>, SnapshotError> {
        prepared(snapshot)?;
        if snapshot.lowers.is_empty() {
            // overlayfs needs a lower layer; without one the directory itself is the root.
            let source = self.numbered.content(snapshot.number).display().to_string();
            let options = vec!["rbind".to_owned(), "rw".to_owned()];
            return Ok(vec![Mount { kind: "bind".to_owned(), source, target: String::new(), options }]);
        }
        let mut options = self.options(snapshot);
        // The kernel refuses a layer that was mounted volatile before, because it may have lost writes in a crash;
        // after a plain stop and start nothing was lost (overlayfs.rst, "Volatile mount").
        let mark = self.numbered.path(snapshot.number).join("work/work/incompat/volatile");
        match fs::remove_dir_all(&mark) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &mark, e)),
            _ => {}
        }
        if volatile {
            options.push("volatile".to_owned());
        }
        let kind = NAME_IN_KERNEL.to_owned();
        Ok(vec![Mount { source: kind.clone(), kind, target: String::new(), options }])
    }

    fn limits(&self) -> bool {
        *self.projects.get_or_init(|| {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let folder = rustix::fs::open(self.numbered.folder(), flags, rustix::fs::Mode::empty());
            folder.is_ok_and(|folder| limit_project(folder.as_fd(), PROJECTS, 0).is_ok())
        })
    }

    fn limit(&self, snapshot: &Snapshot, bytes: u64) -> Result<(), SnapshotError> {
        prepared(snapshot)?;
        let path = self.numbered.path(snapshot.number);
        // Numbers go up from 1; those that have been used up to here fit many times.
        let project = PROJECTS.wrapping_add(snapshot.number as u32);
        let failed = |e: io::Error| failed("limit", &path, e);
        for folder in [path.clone(), path.join("fs"), path.join("work")] {
            set_project(fs::File::open(&folder).map_err(failed)?.as_fd(), project).map_err(failed)?;
        }
        limit_project(fs::File::open(&path).map_err(failed)?.as_fd(), project, bytes).map_err(failed)
    }

    fn target(&self, snapshot: &Snapshot) -> Result<Target, SnapshotError> {
        prepared(snapshot)?;
        let root = self.numbered.open_content(snapshot.number)?;
        let parents = snapshot.lowers.iter().map(|lower| self.numbered.open_content(*lower));
        Ok(Target { root, parents: parents.collect::<Result<_, _>>()?, whiteouts: Whiteouts::Overlay })
    }

    fn layer(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        self.numbered.open_content(snapshot.number)
    }

    fn view(&self, snapshot: &Snapshot) -> Result<OwnedFd, SnapshotError> {
        self.stacked(std::iter::once(&snapshot.number).chain(&snapshot.lowers))
    }

    fn difference(&self, snapshot: &Snapshot) -> Result<Difference, SnapshotError> {
        let now = self.numbered.open_content(snapshot.number)?;
        let below = !snapshot.lowers.is_empty();
        let before = below.then(|| self.stacked(snapshot.lowers.iter())).transpose()?;
        Ok(Difference { now, before, form: Form::Overlay, places: Vec::new() })
    }

    fn rebase(&self, snapshot: Snapshot, parent: &Snapshot, implied: &[PathBuf]) -> Result<Snapshot, SnapshotError> {
        prepared(&snapshot)?;
        committed(parent)?;
        let lowers: Vec<u64> = std::iter::once(parent.number).chain(parent.lowers.iter().copied()).collect();
        let root = self.numbered.open_content(snapshot.number)?;
        let below = lowers.iter().map(|lower| self.numbered.open_content(*lower));
        let below = below.collect::<Result<Vec<_>, _>>()?;
        let failed = |e| failed("set attributes in", &self.numbered.content(snapshot.number), e);
        wharf_archive::settle(root, &below, implied).map_err(failed)?;
        Ok(Snapshot { lowers, ..snapshot })
    }

    fn commit(&self, snapshot: Snapshot) -> Result<Snapshot, SnapshotError> {
        prepared(&snapshot)?;
        let work = self.numbered.path(snapshot.number).join("work");
        match fs::remove_dir_all(&work) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &work, e)),
            _ => {}
        }
        Ok(Snapshot { writable: false, ..snapshot })
    }

    fn reset(&self, snapshot: &Snapshot, parent: Option<&Snapshot>) -> Result<Snapshot, SnapshotError> {
        committed(snapshot)?;
        self.numbered.restore(snapshot.number, &[("fs", 0o755)])?;
        self.numbered.wipe(snapshot.number)?;
        self.numbered.dress(snapshot.number, parent)?;
        Ok(Snapshot { writable: true, ..snapshot.clone() })
    }

    fn remove(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.numbered.remove(snapshot)
    }

    fn usage(&self, snapshot: &Snapshot) -> Result<Usage, SnapshotError> {
        self.numbered.usage(snapshot.number)
    }

    fn reconcile(&self, known: &HashSet<u64>) -> Result<Vec<u64>, SnapshotError> {
        self.numbered.reconcile(known)
    }
}
