//! What a container mounts besides its root: `Binds`, `Mounts`, `Tmpfs`, the image's volumes and `VolumesFrom`, read
//! into one list of mount points. Pure; the volumes behind them are made elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharf_api_types::Mount;
use wharf_error::{HasKind, Kind};

/// A mount request that is refused. The texts are Docker's (moby `volume/mounts`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum MountError {
    #[error("{option} must not be specified on mount type \"{kind}\"")]
    Options { option: &'static str, kind: String },
    #[error("invalid mount config for type \"{kind}\": {reason}")]
    Config { kind: String, reason: String },
    #[error("invalid volume specification: '{0}'")]
    Specification(String),
    #[error("invalid volume specification: '{spec}': {error}")]
    SpecificationConfig { spec: String, error: Box<MountError> },
    #[error("invalid mode: {0}")]
    Mode(String),
    #[error("Duplicate mount point: {0}")]
    Duplicate(String),
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    TmpfsPath(String),
    #[error(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    VolumeName { name: String },
    #[error("create {name}: volume name is too short, names should be at least two alphanumeric characters")]
    VolumeShort { name: String },
    #[error("create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found")]
    Driver { name: String, driver: String },
    #[error("volumes-from specification cannot be an empty string")]
    EmptyFrom,
    #[error("invalid mode: {0}")]
    FromMode(String),
    #[error("invalid tmpfs option \"{0}\"")]
    TmpfsOption(String),
}

impl HasKind for MountError {
    fn kind(&self) -> Kind {
        match self {
            // moby leaves these unclassified, which makes them status 500.
            MountError::Specification(_)
            | MountError::SpecificationConfig { .. }
            | MountError::Mode(_)
            | MountError::TmpfsOption(_) => Kind::System,
            MountError::Driver { .. } => Kind::NotFound,
            MountError::Options { .. }
            | MountError::Config { .. }
            | MountError::Duplicate(_)
            | MountError::TmpfsPath(_)
            | MountError::VolumeName { .. }
            | MountError::VolumeShort { .. }
            | MountError::EmptyFrom
            | MountError::FromMode(_) => Kind::Invalid,
        }
    }
}

/// What stands behind a mount point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A path on the host. `create`: whether a missing folder is made at start (`-v`, not `--mount`).
    Bind {
        /// Absolute path.
        path: String,
        /// Make a missing folder.
        create: bool,
    },
    /// A volume; an empty name is one of its own, with a random name.
    Volume {
        /// Name.
        name: String,
        /// Whether the image's files are copied into an empty volume.
        copy: bool,
        /// Path inside the volume.
        subpath: String,
        /// Whether nobody named it; such a volume goes with `rm -v` and `--rm`.
        anonymous: bool,
        /// Driver of a volume that is made for this point; empty is `local`.
        #[serde(default)]
        driver: String,
        /// Its options.
        #[serde(default)]
        options: BTreeMap<String, String>,
    },
    /// An image's file system, read-only.
    Image {
        /// The name by which it was asked for.
        name: String,
        /// The image's id.
        id: String,
        /// Its topmost layer; none for an image without layers.
        snapshot: Option<wharf_snapshot::Snapshot>,
        /// Path inside the image.
        subpath: String,
    },
    /// Memory.
    Tmpfs {
        /// `size=…`, `mode=…` and flags.
        options: Vec<String>,
    },
}

/// One mount point of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Absolute, clean path in the container.
    pub target: String,
    /// What is mounted.
    pub source: Source,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Mode text as inspect shows it.
    pub mode: String,
    /// Propagation: empty for the default, `rprivate`.
    pub propagation: String,
    /// Whether submounts stay outside.
    pub non_recursive: bool,
    /// How far read-only reaches.
    #[serde(default)]
    pub read_only_depth: Depth,
    /// Labels of a volume that is made for this point.
    pub labels: BTreeMap<String, String>,
    /// Whether `Mounts` asked for it: such points are not shown in lists as `Binds` are.
    pub explicit: bool,
}

/// How far read-only reaches into the mounts below a bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// As far as the kernel can.
    #[default]
    Possible,
    /// The topmost mount only.
    Topmost,
    /// All of them, or not at all.
    Whole,
}

impl Source {
    /// A volume of the local driver.
    fn volume(name: &str, copy: bool) -> Source {
        Source::Volume {
            name: name.to_owned(),
            copy,
            subpath: String::new(),
            anonymous: name.is_empty(),
            driver: String::new(),
            options: BTreeMap::new(),
        }
    }
}

/// Whether a path inside a volume or image stays inside, as far as its words tell (Go's `filepath.IsLocal`).
fn is_local(path: &str) -> bool {
    let mut depth = 0_i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    !path.starts_with('/')
}

const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// Removes `.`, empty parts and `..` from an absolute path, as Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Checks a volume's name.
pub fn check_volume_name(name: &str) -> Result<(), MountError> {
    match name.len() {
        1 => Err(MountError::VolumeShort { name: name.to_owned() }),
        _ if !crate::names::is_valid(name) => Err(MountError::VolumeName { name: name.to_owned() }),
        _ => Ok(()),
    }
}

/// Checks one entry of `Mounts`.
pub fn check(mount: &Mount) -> Result<(), MountError> {
    let kind = mount.r#type.clone();
    let config = |reason: String| Err(MountError::Config { kind: kind.clone(), reason });
    if !matches!(kind.as_str(), "bind" | "volume" | "tmpfs" | "image") {
        return config("mount type unknown".to_owned());
    }
    let options = |option| Err(MountError::Options { option, kind: kind.clone() });
    let given = [
        (mount.bind_options.is_some() && kind != "bind", "BindOptions"),
        (mount.volume_options.is_some() && kind != "volume", "VolumeOptions"),
        (mount.image_options.is_some() && kind != "image", "ImageOptions"),
        (mount.tmpfs_options.is_some() && kind != "tmpfs", "TmpfsOptions"),
    ];
    if let Some((_, option)) = given.iter().find(|(wrong, _)| *wrong) {
        return options(option);
    }
    if mount.target.is_empty() {
        return config("field Target must not be empty".to_owned());
    }
    if matches!(kind.as_str(), "bind" | "image") && mount.source.is_empty() {
        return config("field Source must not be empty".to_owned());
    }
    if !mount.target.starts_with('/') {
        return config(format!("invalid mount path: '{}' mount path must be absolute", mount.target));
    }
    if clean(&mount.target) == "/" {
        return config("invalid specification: destination can't be '/'".to_owned());
    }
    match kind.as_str() {
        "bind" => {
            let bind = mount.bind_options.clone().unwrap_or_default();
            if bind.read_only_force_recursive && !mount.read_only {
                return config("mount must be read-only to force recursive read-only".to_owned());
            }
            if bind.read_only_force_recursive && !matches!(bind.propagation.as_str(), "" | "rprivate") {
                return config("mount must have rprivate propagation to force recursive read-only".to_owned());
            }
            if !bind.propagation.is_empty() && !PROPAGATIONS.contains(&bind.propagation.as_str()) {
                return config(format!("invalid propagation mode: {}", bind.propagation));
            }
            if !mount.source.starts_with('/') {
                return config(format!("invalid mount path: '{}' mount path must be absolute", mount.source));
            }
            if !bind.create_mountpoint && std::fs::symlink_metadata(&mount.source).is_err() {
                return config(format!("bind source path does not exist: {}", mount.source));
            }
        }
        "tmpfs" if !mount.source.is_empty() => return config("field Source must not be specified".to_owned()),
        "image" if mount.image_options.as_ref().is_some_and(|o| !is_local(&o.subpath)) => {
            return config("subpath must be a relative path within the image".to_owned());
        }
        "volume" => {
            let subpath = mount.volume_options.as_ref().map_or("", |o| o.subpath.as_str());
            if !subpath.is_empty() && mount.source.is_empty() {
                return config("must not set Subpath when using anonymous volumes".to_owned());
            }
            if !is_local(subpath) {
                return config("subpath must be a relative path within the volume".to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Reads one entry of `Binds`: `[source:]target[:mode]`.
pub fn parse_bind(spec: &str) -> Result<Point, MountError> {
    let wrong = || MountError::Specification(spec.to_owned());
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] if !target.is_empty() => ("", *target, ""),
        ["", ..] | [_, ""] => return Err(wrong()),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(wrong()),
    };
    let mut point = Point {
        target: target.to_owned(),
        source: Source::Bind { path: source.to_owned(), create: true },
        read_only: false,
        mode: mode.to_owned(),
        propagation: String::new(),
        non_recursive: false,
        read_only_depth: Depth::Possible,
        labels: BTreeMap::new(),
        explicit: false,
    };
    let is_bind = source.starts_with('/');
    let copy = modes(&mut point, mode, is_bind)?;
    let kind = if is_bind { "bind" } else { "volume" };
    let nested = |reason: String| {
        let error = Box::new(MountError::Config { kind: kind.to_owned(), reason });
        MountError::SpecificationConfig { spec: spec.to_owned(), error }
    };
    if !target.starts_with('/') {
        return Err(nested(format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    point.target = clean(target);
    if point.target == "/" {
        return Err(nested("invalid specification: destination can't be '/'".to_owned()));
    }
    if is_bind {
        point.source = Source::Bind { path: clean(source), create: true };
        if point.propagation.is_empty() {
            point.propagation = "rprivate".to_owned();
        }
    } else {
        let anonymous = source.is_empty();
        point.source = Source::volume(source, copy);
        if mode.is_empty() && !anonymous {
            // Docker's default mode of named volumes, shown by inspect.
            point.mode = "z".to_owned();
        }
    }
    Ok(point)
}

/// Applies mode words; returns whether an empty volume is filled.
fn modes(point: &mut Point, mode: &str, is_bind: bool) -> Result<bool, MountError> {
    let wrong = || MountError::Mode(mode.to_owned());
    let (mut access, mut label, mut copy, mut propagation) = (0, 0, None, 0);
    for word in mode.split(',').filter(|_| !mode.is_empty()) {
        match word {
            "ro" | "rw" => {
                access += 1;
                point.read_only = word == "ro";
            }
            "z" | "Z" => label += 1,
            "nocopy" if !is_bind && copy.is_none() => copy = Some(false),
            "consistent" | "cached" | "delegated" => {}
            word if is_bind && PROPAGATIONS.contains(&word) => {
                propagation += 1;
                point.propagation = word.to_owned();
            }
            _ => return Err(wrong()),
        }
    }
    if access > 1 || label > 1 || propagation > 1 { Err(wrong()) } else { Ok(copy.unwrap_or(true)) }
}

/// Reads one entry of `Mounts` that [`check`] has passed.
pub fn of_mount(mount: &Mount) -> Point {
    let volume = mount.volume_options.clone().unwrap_or_default();
    let bind = mount.bind_options.clone().unwrap_or_default();
    let source = match mount.r#type.as_str() {
        "bind" => Source::Bind { path: clean(&mount.source), create: bind.create_mountpoint },
        "tmpfs" => {
            let tmpfs = mount.tmpfs_options.clone().unwrap_or_default();
            let mut options = Vec::new();
            if mount.read_only {
                options.push("ro".to_owned());
            }
            if tmpfs.mode != 0 {
                options.push(format!("mode={:o}", tmpfs.mode));
            }
            if tmpfs.size_bytes != 0 {
                options.push(format!("size={}", tmpfs.size_bytes));
            }
            options.extend(tmpfs.options.unwrap_or_default().iter().map(|words| words.join("=")));
            Source::Tmpfs { options }
        }
        "image" => Source::Image {
            name: mount.source.clone(),
            id: String::new(),
            snapshot: None,
            subpath: mount.image_options.clone().unwrap_or_default().subpath,
        },
        _ => Source::Volume {
            name: mount.source.clone(),
            copy: !volume.no_copy,
            subpath: volume.subpath,
            anonymous: mount.source.is_empty(),
            driver: volume.driver_config.as_ref().map(|d| d.name.clone()).unwrap_or_default(),
            options: volume.driver_config.and_then(|d| d.options).unwrap_or_default(),
        },
    };
    let depth = match (bind.read_only_non_recursive, bind.read_only_force_recursive) {
        (true, _) => Depth::Topmost,
        (_, true) => Depth::Whole,
        _ => Depth::Possible,
    };
    let mode = if matches!(source, Source::Volume { .. }) { "z" } else { "" };
    let propagation = match mount.r#type.as_str() {
        "bind" | "image" if bind.propagation.is_empty() => "rprivate".to_owned(),
        _ => bind.propagation,
    };
    Point {
        target: clean(&mount.target),
        source,
        read_only: mount.read_only || mount.r#type == "image",
        mode: mode.to_owned(),
        propagation,
        non_recursive: bind.non_recursive,
        read_only_depth: depth,
        labels: volume.labels.unwrap_or_default(),
        explicit: true,
    }
}

/// An anonymous volume that the image or `Config.Volumes` asks for.
pub fn anonymous(target: &str) -> Point {
    Point {
        target: clean(target),
        source: Source::volume("", true),
        read_only: false,
        mode: String::new(),
        propagation: String::new(),
        non_recursive: false,
        read_only_depth: Depth::Possible,
        labels: BTreeMap::new(),
        explicit: false,
    }
}

/// Reads one entry of `VolumesFrom`: a container and whether its points become read-only.
pub fn parse_from(spec: &str) -> Result<(&str, Option<bool>), MountError> {
    if spec.is_empty() {
        return Err(MountError::EmptyFrom);
    }
    match spec.split_once(':') {
        None => Ok((spec, None)),
        Some((container, "ro")) => Ok((container, Some(true))),
        Some((container, "rw" | "z" | "Z" | "")) => Ok((container, Some(false))),
        Some((_, mode)) => Err(MountError::FromMode(mode.to_owned())),
    }
}

/// Reads one entry of `Tmpfs`, adding Docker's default flags.
pub fn tmpfs_options(text: &str) -> Result<Vec<String>, MountError> {
    const FLAGS: &[&str] = &[
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "bind",
        "rbind",
        "unbindable",
        "runbindable",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    const KEYS: &[&str] = &["mode", "uid", "gid", "nr_inodes", "size", "nr_blocks", "mpol"];
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].iter().map(|s| (*s).to_owned()).collect();
    for word in text.split(',').filter(|w| !w.is_empty()) {
        let key = word.split_once('=').map(|(k, _)| k);
        let known = key.map_or_else(|| FLAGS.contains(&word), |k| KEYS.contains(&k));
        if !known {
            return Err(MountError::TmpfsOption(word.to_owned()));
        }
        // A later word takes the place of its opposite.
        let opposite = word.strip_prefix("no").map_or_else(|| format!("no{word}"), str::to_owned);
        options.retain(|have| *have != opposite && have != word);
        options.push(word.to_owned());
    }
    Ok(options)
}
