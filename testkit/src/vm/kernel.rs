//! The guest's kernel: Debian's, unpacked beside the build and not installed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

/// The package that depends on the newest kernel of Debian's for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel and its modules.
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    modules: PathBuf,
    /// `modules.dep` (depmod(8)): each module's path and those it needs, the first needed last.
    dependencies: String,
}

impl Kernel {
    /// Fetches the package, once for each target folder.
    ///
    /// # Panics
    /// Where there is no apt or the package cannot be had.
    pub fn obtain() -> Self {
        let cache = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/vm");
        fs::create_dir_all(&cache).unwrap();
        let lock = File::create(cache.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        if !cache.join("complete").exists() {
            fetch(&cache);
            File::create(cache.join("complete")).unwrap();
        }
        let version = only_entry(&cache.join("lib/modules"));
        let modules = cache.join("lib/modules").join(&version);
        let dependencies = fs::read_to_string(modules.join("modules.dep")).unwrap();
        Self { image: cache.join(format!("boot/vmlinuz-{version}")), modules, dependencies }
    }

    /// Returns the files of modules and of all they need, in the order in which they must be loaded. Names that the kernel
    /// has built in, or does not have, are left out.
    pub fn modules(&self, names: &[&str]) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for name in names {
            let line =
                self.dependencies.lines().find(|l| module_name(l.split(':').next().unwrap_or_default()) == *name);
            let Some((own, needed)) = line.and_then(|l| l.split_once(':')) else { continue };
            let files = needed.split_whitespace().rev().chain([own]);
            out.extend(files.filter(|f| seen.insert((*f).to_owned())).map(|f| self.modules.join(f)));
        }
        out
    }
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

fn fetch(cache: &Path) {
    let depends = succeed(Command::new("apt-cache").args(["depends", PACKAGE]));
    let package = depends.split_whitespace().find(|w| w.starts_with("linux-image-") && *w != PACKAGE).unwrap();
    succeed(Command::new("apt-get").args(["download", "-q", package]).current_dir(cache));
    let deb = fs::read_dir(cache).unwrap().flatten().map(|e| e.path());
    let deb = deb.filter(|p| p.extension().is_some_and(|e| e == "deb")).max().unwrap();
    succeed(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(cache));
    let version = only_entry(&cache.join("lib/modules"));
    succeed(Command::new("/sbin/depmod").arg("-b").arg(cache).arg(version));
}

fn only_entry(folder: &Path) -> String {
    let mut entries = fs::read_dir(folder).unwrap().flatten();
    entries.next().unwrap().file_name().into_string().unwrap()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
