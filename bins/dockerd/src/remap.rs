//! `--userns-remap`: whose subordinate ids containers get (subuid(5), subgid(5)), as moby's `parseRemappedRoot` and
//! `idtools.LoadIdentityMapping` find them, in their words.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_types::{IdMaps, IdRange};

use crate::config;
use crate::settings::Settings;

/// The user that `default` means, made if need be.
const DEFAULT: &str = "dockremap";

/// Ids that a new user gets, and the first that may be given (useradd's `SUB_UID_COUNT` and `SUB_UID_MIN`).
const COUNT: u32 = 65_536;
const FIRST: u32 = 100_000;

/// Ids that cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum RemapError {
    #[error("failed to start daemon: Invalid user/group specification in --userns-remap: {0:?}")]
    Form(String),
    #[error("failed to start daemon: Uid {0} has no entry in /etc/passwd")]
    Uid(u32),
    #[error("failed to start daemon: Gid {0} has no entry in /etc/group")]
    Gid(u32),
    #[error("failed to start daemon: Error during uid lookup for {0:?}: no matching entries in passwd file")]
    User(String),
    #[error("failed to start daemon: Error during gid lookup for {0:?}: no matching entries in group file")]
    Group(String),
    #[error("failed to start daemon: Error during {DEFAULT:?} user creation: {0}")]
    Make(String),
    #[error("failed to start daemon: Can't create ID mappings: no sub{kind} ranges found for user {user:?}")]
    NoRange { kind: &'static str, user: String },
    #[error("cannot {operation} {path}")]
    Folder {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Where the daemon's data is, and the ids of its containers.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data root; with remapped ids a folder in it that is named after their root, so that data of several maps never mix.
    pub data_root: PathBuf,
    /// The ids.
    pub users: Option<IdMaps>,
}

/// Finds the ids and makes the folder.
///
/// # Errors
/// [`RemapError`]; a data root that is no path.
pub fn place(settings: &Settings) -> Result<Place, Box<dyn std::error::Error>> {
    let data_root = config::folder(settings, "data-root")?;
    let wanted = settings.text("userns-remap");
    let users = if wanted.is_empty() { None } else { Database::system().find(wanted)? };
    let Some(maps) = &users else { return Ok(Place { data_root, users }) };
    let (uid, gid) = maps.root();
    let inner = data_root.join(format!("{uid}.{gid}"));
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| RemapError::Folder { operation, path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o711).create(&data_root).map_err(failed("make", &data_root))?;
    fs::DirBuilder::new().recursive(true).mode(0o710).create(&inner).map_err(failed("make", &inner))?;
    chown(&inner, Some(0), Some(gid)).map_err(failed("give a group to", &inner))?;
    Ok(Place { data_root: inner, users })
}

/// The files of users, groups and subordinate ids.
struct Database {
    folder: PathBuf,
}

impl Database {
    fn system() -> Self {
        Self { folder: PathBuf::from("/etc") }
    }

    /// Lines of a file, split at colons. A file that is missing has none.
    fn read(&self, file: &str) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split(':').map(str::to_owned).collect()).collect()
    }

    /// The name and the id of a user or group, by either.
    fn look_up(&self, file: &str, key: &str) -> Option<(String, u32)> {
        let number: Option<u32> = key.parse().ok();
        self.read(file).into_iter().find_map(|fields| {
            let id = fields.get(2)?.parse().ok()?;
            (number.map_or(fields[0] == key, |n| n == id)).then(|| (fields[0].clone(), id))
        })
    }

    /// The ids for what the flag says; none for root, which cannot be mapped to itself.
    fn find(&self, wanted: &str) -> Result<Option<IdMaps>, RemapError> {
        let parts: Vec<&str> = wanted.split(':').collect();
        let (user, group) = match parts.as_slice() {
            [user] => (*user, None),
            [user, group] => (*user, Some(*group)),
            _ => return Err(RemapError::Form(wanted.to_owned())),
        };
        let key = if user == "default" { DEFAULT } else { user };
        let (name, uid) = match (self.look_up("passwd", key), user.parse::<u32>()) {
            (Some(found), _) => found,
            (None, Ok(number)) => return Err(RemapError::Uid(number)),
            (None, Err(_)) if user == "default" => {
                self.make_default()?;
                self.look_up("passwd", key).ok_or_else(|| RemapError::User(key.to_owned()))?
            }
            (None, Err(_)) => return Err(RemapError::User(key.to_owned())),
        };
        // The group decides nothing but whether it is there: ranges of both kinds are the user's.
        let group = group.map_or_else(|| key.to_owned(), str::to_owned);
        if self.look_up("group", &group).is_none() {
            return Err(group.parse().map_or_else(|_| RemapError::Group(group), RemapError::Gid));
        }
        if name == "root" {
            tracing::warn!("User namespaces: root cannot be remapped with itself; user namespaces are OFF");
            return Ok(None);
        }
        tracing::info!("User namespaces: ID ranges will be mapped to subuid/subgid ranges of: {name}");
        let maps = IdMaps { uids: self.ranges("subuid", &name, uid), gids: self.ranges("subgid", &name, uid) };
        for (kind, ranges) in [("uid", &maps.uids), ("gid", &maps.gids)] {
            if ranges.is_empty() {
                return Err(RemapError::NoRange { kind, user: name });
            }
        }
        Ok(Some(maps))
    }

    /// A user's ranges in the order of their ids, one after the other inside.
    fn ranges(&self, file: &str, name: &str, uid: u32) -> Vec<IdRange> {
        let number = uid.to_string();
        let mut list: Vec<(u32, u32)> =
            self.read(file).iter().filter_map(|fields| range(fields, name, &number)).collect();
        list.sort_unstable();
        let mut inside = 0;
        let one = |(outside, count)| {
            let range = IdRange { inside, outside, count };
            inside += count;
            range
        };
        list.into_iter().map(one).collect()
    }

    /// Makes the default user with its ranges, by the system's own programs.
    fn make_default(&self) -> Result<(), RemapError> {
        let failed = |what: String| RemapError::Make(what);
        run("useradd", &["--system", "--user-group", "--no-create-home", "--shell", "/bin/false", DEFAULT])
            .map_err(failed)?;
        for (file, option) in [("subuid", "--add-subuids"), ("subgid", "--add-subgids")] {
            let taken = self.read(file);
            if taken.iter().any(|fields| fields[0] == DEFAULT) {
                continue;
            }
            let ends = taken
                .iter()
                .filter_map(|f| Some(f.get(1)?.parse::<u32>().ok()?.saturating_add(f.get(2)?.parse().ok()?)));
            let first = ends.fold(FIRST, u32::max);
            run("usermod", &[option, &format!("{first}-{}", first.saturating_add(COUNT - 1)), DEFAULT])
                .map_err(failed)?;
        }
        Ok(())
    }
}

fn range(fields: &[String], name: &str, number: &str) -> Option<(u32, u32)> {
    let [owner, first, count] = fields else { return None };
    (owner == name || owner == number).then_some(())?;
    Some((first.parse().ok()?, count.parse().ok()?))
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{program} failed with {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(files: &[(&str, &str)]) -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let database = Database { folder: folder.path().to_owned() };
        (folder, database)
    }

    const PASSWD: (&str, &str) =
        ("passwd", "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n");
    const GROUP: (&str, &str) = ("group", "root:x:0:\nann:x:1000:\nstaff:x:50:ann\n");

    #[test]
    fn a_users_ranges_follow_each_other_inside_whoever_names_them() {
        let subuid = ("subuid", "# ids\nann:300000:10\nother:1:1\nann:100000:65536\n");
        let (_folder, database) = database(&[PASSWD, GROUP, subuid, ("subgid", "1000:200000:65536\n")]);
        for wanted in ["ann", "1000", "ann:staff", "1000:50"] {
            let maps = database.find(wanted).expect(wanted).expect("ids");
            let range = |inside, outside, count| IdRange { inside, outside, count };
            assert_eq!(maps.uids, [range(0, 100_000, 65_536), range(65_536, 300_000, 10)], "{wanted}");
            assert_eq!(maps.root(), (100_000, 200_000), "{wanted}");
        }
        assert_eq!(database.find("root").expect("known"), None, "root is itself already");
    }

    #[test]
    fn what_is_missing_is_named_in_dockers_words() {
        let (_folder, database) = database(&[PASSWD, GROUP, ("subuid", "ann:100000:65536\n")]);
        for (wanted, words) in [
            ("a:b:c", "Invalid user/group specification in --userns-remap: \"a:b:c\""),
            ("7", "Uid 7 has no entry in /etc/passwd"),
            ("eve", "Error during uid lookup for \"eve\": no matching entries in passwd file"),
            ("bob", "Error during gid lookup for \"bob\": no matching entries in group file"),
            ("ann:77", "Gid 77 has no entry in /etc/group"),
            ("ann", "Can't create ID mappings: no subgid ranges found for user \"ann\""),
            ("bob:staff", "Can't create ID mappings: no subuid ranges found for user \"bob\""),
        ] {
            let error = database.find(wanted).expect_err(wanted).to_string();
            assert_eq!(error, format!("failed to start daemon: {words}"));
        }
    }
}
