//! Intel RDT: cache and memory bandwidth by resctrl (kernel Documentation/arch/x86/resctrl.rst; OCI config-linux.md, "IntelRdt").
//!
//! ```text
//! <resctrl>/<closID or container id>/schemata    what the class may use
//!                                   /tasks       its processes
//!                                   /mon_groups/<container id>   with enableMonitoring
//! ```

use std::path::{Path, PathBuf};

use wharf_oci::runtime::IntelRdt;
use wharf_types::{Failure, Stage};

use crate::failure::{OrFail, refuse};

/// A class of service and what it should be.
#[derive(Debug)]
pub(crate) struct Class {
    folder: PathBuf,
    /// Lines for `schemata`, each with its end.
    schemata: String,
    /// Whether it must be there already: it was named and nothing was said of its schemata.
    must_exist: bool,
    /// Whether it is the container's own, and goes with it.
    own: bool,
    monitoring: Option<PathBuf>,
}

/// Where resctrl is mounted, by `/proc/self/mountinfo`.
fn mounted() -> Option<PathBuf> {
    let usual = Path::new("/sys/fs/resctrl");
    if usual.join("schemata").exists() {
        return Some(usual.to_owned());
    }
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let place = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "resctrl").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    text.lines().find_map(place)
}

/// Reads what is asked for.
pub(crate) fn plan(asked: &IntelRdt, id: &str) -> Result<Class, Failure> {
    let text = "intelRdt is specified in config, but Intel RDT is not supported or enabled";
    plan_at(&mounted().ok_or_else(|| refuse(Stage::Config, text))?, asked, id)
}

fn plan_at(root: &Path, asked: &IntelRdt, id: &str) -> Result<Class, Failure> {
    let named = asked.clos_id.as_deref().filter(|name| !name.is_empty());
    let name = named.unwrap_or(id);
    if matches!(name, "." | "..") || name.contains(['/', '\n', '\0']) {
        return Err(refuse(Stage::Config, format!("invalid intelRdt.ClosID {name:?}")));
    }
    let lines = asked.l3_cache_schema.iter().chain(&asked.mem_bw_schema).chain(&asked.schemata);
    let mut schemata = String::new();
    for line in lines.flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty()) {
        if !line.contains(':') {
            return Err(refuse(Stage::Config, format!("intelRdt schemata line {line:?} names no resource")));
        }
        schemata.push_str(line);
        schemata.push('\n');
    }
    let folder = root.join(name);
    Ok(Class {
        must_exist: named.is_some() && schemata.is_empty(),
        monitoring: asked.enable_monitoring.then(|| folder.join("mon_groups").join(id)),
        schemata,
        own: named.is_none(),
        folder,
    })
}

impl Class {
    /// Puts a process into the class, which is made if need be.
    pub(crate) fn apply(&self, pid: i32) -> Result<(), Failure> {
        let what = |path: &Path| format!("intelRdt: {}", path.display());
        if self.must_exist && !self.folder.is_dir() {
            return Err(refuse(Stage::Cgroup, "clos group doesn't exist"));
        }
        make(&self.folder).or_fail(Stage::Cgroup, || what(&self.folder))?;
        let file = self.folder.join("schemata");
        if !self.schemata.is_empty() {
            std::fs::write(&file, &self.schemata).or_fail(Stage::Cgroup, || what(&file))?;
        }
        let tasks = self.folder.join("tasks");
        std::fs::write(&tasks, pid.to_string()).or_fail(Stage::Cgroup, || what(&tasks))?;
        if let Some(monitoring) = &self.monitoring {
            make(monitoring).or_fail(Stage::Cgroup, || what(monitoring))?;
            let tasks = monitoring.join("tasks");
            std::fs::write(&tasks, pid.to_string()).or_fail(Stage::Cgroup, || what(&tasks))?;
        }
        Ok(())
    }

    /// Takes back what is the container's own; a class that was named stays, as with runc.
    pub(crate) fn remove(&self) {
        // Both are gone with the last process at the latest when the host restarts; nothing depends on them.
        if let Some(monitoring) = &self.monitoring {
            let _ = std::fs::remove_dir(monitoring);
        }
        if self.own {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

fn make(folder: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes the class of an ended container.
pub(crate) fn forget(asked: Option<&IntelRdt>, id: &str) {
    if let Some(class) = asked.and_then(|asked| plan(asked, id).ok()) {
        class.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(clos_id: Option<&str>, schemata: &[&str]) -> IntelRdt {
        let schemata = schemata.iter().map(|s| (*s).to_owned()).collect();
        IntelRdt { clos_id: clos_id.map(str::to_owned), schemata, ..IntelRdt::default() }
    }

    #[test]
    fn an_own_class_is_made_filled_and_removed() {
        let root = tempfile::tempdir().expect("folder");
        let rdt = IntelRdt { l3_cache_schema: Some("L3:0=f".to_owned()), ..asked(None, &["MB:0=50"]) };
        let class = plan_at(root.path(), &rdt, "c1").expect("valid");
        class.apply(7).expect("applied");
        let read = |name: &str| std::fs::read_to_string(root.path().join("c1").join(name)).expect("read");
        assert_eq!((read("schemata").as_str(), read("tasks").as_str()), ("L3:0=f\nMB:0=50\n", "7"));
        for file in ["schemata", "tasks"] {
            // On resctrl the kernel takes them away with the folder.
            std::fs::remove_file(root.path().join("c1").join(file)).expect("removed");
        }
        class.remove();
        assert!(!root.path().join("c1").exists());
    }

    #[test]
    fn a_named_class_without_schemata_must_exist_and_stays() {
        let root = tempfile::tempdir().expect("folder");
        let class = plan_at(root.path(), &asked(Some("gold"), &[]), "c1").expect("valid");
        assert_eq!(class.apply(7).expect_err("missing").subject, "clos group doesn't exist");
        std::fs::create_dir(root.path().join("gold")).expect("folder");
        class.apply(7).expect("applied");
        class.remove();
        assert!(root.path().join("gold").exists());
    }

    #[test]
    fn names_and_lines_that_lead_elsewhere_are_refused() {
        let root = Path::new("/nowhere");
        for name in ["..", "a/b", "."] {
            assert!(plan_at(root, &asked(Some(name), &[]), "c").is_err(), "{name}");
        }
        assert!(plan_at(root, &asked(None, &["garbage"]), "c").is_err());
    }
}
