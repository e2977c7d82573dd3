//! The table of paths: which method and path is which endpoint.
//!
//! A pattern holds at most one `{}`, which matches anything, slashes included (image names hold them), except in
//! patterns marked [`Wild::Segment`]. The first fitting row counts; the order is that of moby's routers, so that odd
//! names (`DELETE /containers/json`) mean what they mean there.

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The table below says what each is.
pub enum Endpoint {
    Ping,
    Options,
    Version,
    Info,
    DiskUsage,
    StoreCheck,
    Auth,
    Events,
    /// What the process tells of itself.
    DebugVars,
    /// Profiles of Go programs, which this is none of.
    DebugProfile,
    ContainerCreate,
    ContainerList,
    ContainerInspect,
    ContainerTop,
    ContainerLogs,
    ContainerStats,
    ContainerChanges,
    ContainerExport,
    ContainerAttach,
    ContainerAttachWebsocket,
    ContainerKill,
    ContainerPause,
    ContainerUnpause,
    ContainerRestart,
    ContainerStart,
    ContainerStop,
    ContainerWait,
    ContainerResize,
    ContainerRename,
    ContainerUpdate,
    ContainerPrune,
    ContainerRemove,
    CheckpointCreate,
    CheckpointList,
    CheckpointRemove,
    ArchiveStat,
    ArchiveGet,
    ArchivePut,
    Commit,
    ExecCreate,
    ExecStart,
    ExecInspect,
    ExecResize,
    ImageList,
    ImageInspect,
    ImageHistory,
    ImageSaveAll,
    ImageSave,
    ImageCreate,
    ImageLoad,
    ImageTag,
    ImageRemove,
    ImagePrune,
    ImagePush,
    ImageSearch,
    Distribution,
    NetworkList,
    NetworkInspect,
    NetworkCreate,
    NetworkRemove,
    NetworkConnect,
    NetworkDisconnect,
    NetworkPrune,
    VolumeList,
    VolumeInspect,
    VolumeCreate,
    VolumeRemove,
    VolumePrune,
    VolumeUpdate,
    VolumeRename,
    VolumeClone,
    VolumeExport,
    VolumeImport,
    /// No plugin is installed: an empty list.
    PluginList,
    /// No plugin is installed, so none is found.
    PluginMissing,
    /// Answers as a node outside of any swarm.
    NoManager,
    /// Likewise, for leaving.
    NoSwarm,
    /// The hijacked session of a BuildKit client, which needs an `Upgrade`.
    Session,
    /// BuildKit's services on a hijacked connection.
    Grpc,
    /// The classic builder.
    Build,
    BuildCancel,
    BuildPrune,
    /// Comes with a later feature, which is named.
    Later(&'static str),
}

/// How much the `{}` of a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wild {
    /// Anything, slashes included.
    Any,
    /// One path segment.
    Segment,
    /// Anything, then this word between slashes, then one path segment.
    Within(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub pattern: &'static str,
    /// What `{}` matches.
    pub wild: Wild,
    /// What it is.
    pub endpoint: Endpoint,
}

const fn any(method: &'static str, pattern: &'static str, endpoint: Endpoint) -> Row {
    Row { method, pattern, wild: Wild::Any, endpoint }
}

const fn segment(method: &'static str, pattern: &'static str, endpoint: Endpoint) -> Row {
    Row { method, pattern, wild: Wild::Segment, endpoint }
}

const fn within(method: &'static str, pattern: &'static str, word: &'static str, endpoint: Endpoint) -> Row {
    Row { method, pattern, wild: Wild::Within(word), endpoint }
}

/// What stands between the names of a container and of a checkpoint of it.
pub const CHECKPOINTS: &str = "/checkpoints/";

const PLUGINS: Endpoint = Endpoint::Later("plugins");
/// The feature of clusters of engines.
pub const SWARM_MODE: &str = "swarm mode";
const SWARM: Endpoint = Endpoint::Later(SWARM_MODE);

/// The table.
pub const TABLE: &[Row] = {
    use Endpoint::*;
    &[
        // containers
        any("HEAD", "/containers/{}/archive", ArchiveStat),
        any("GET", "/containers/json", ContainerList),
        any("GET", "/containers/{}/export", ContainerExport),
        any("GET", "/containers/{}/changes", ContainerChanges),
        any("GET", "/containers/{}/json", ContainerInspect),
        any("GET", "/containers/{}/top", ContainerTop),
        any("GET", "/containers/{}/logs", ContainerLogs),
        any("GET", "/containers/{}/stats", ContainerStats),
        any("GET", "/containers/{}/attach/ws", ContainerAttachWebsocket),
        any("GET", "/exec/{}/json", ExecInspect),
        any("GET", "/containers/{}/archive", ArchiveGet),
        any("POST", "/containers/create", ContainerCreate),
        any("POST", "/containers/{}/kill", ContainerKill),
        any("POST", "/containers/{}/pause", ContainerPause),
        any("POST", "/containers/{}/unpause", ContainerUnpause),
        any("POST", "/containers/{}/restart", ContainerRestart),
        any("POST", "/containers/{}/start", ContainerStart),
        any("POST", "/containers/{}/stop", ContainerStop),
        any("POST", "/containers/{}/wait", ContainerWait),
        any("POST", "/containers/{}/resize", ContainerResize),
        any("POST", "/containers/{}/attach", ContainerAttach),
        any("POST", "/containers/{}/exec", ExecCreate),
        any("POST", "/exec/{}/start", ExecStart),
        any("POST", "/exec/{}/resize", ExecResize),
        any("POST", "/containers/{}/rename", ContainerRename),
        any("POST", "/containers/{}/update", ContainerUpdate),
        any("POST", "/containers/prune", ContainerPrune),
        any("POST", "/commit", Commit),
        any("PUT", "/containers/{}/archive", ArchivePut),
        any("GET", "/containers/{}/checkpoints", CheckpointList),
        any("POST", "/containers/{}/checkpoints", CheckpointCreate),
        within("DELETE", "/containers/{}", CHECKPOINTS, CheckpointRemove),
        any("DELETE", "/containers/{}", ContainerRemove),
        // images
        any("GET", "/images/json", ImageList),
        any("GET", "/images/search", ImageSearch),
        any("GET", "/images/get", ImageSaveAll),
        any("GET", "/images/{}/get", ImageSave),
        any("GET", "/images/{}/history", ImageHistory),
        any("GET", "/images/{}/json", ImageInspect),
        any("POST", "/images/load", ImageLoad),
        any("POST", "/images/create", ImageCreate),
        any("POST", "/images/{}/push", ImagePush),
        any("POST", "/images/{}/tag", ImageTag),
        any("POST", "/images/prune", ImagePrune),
        any("DELETE", "/images/{}", ImageRemove),
        // system
        any("OPTIONS", "/{}", Options),
        any("GET", "/_ping", Ping),
        any("HEAD", "/_ping", Ping),
        any("GET", "/events", Events),
        any("GET", "/debug/vars", DebugVars),
        any("GET", "/debug/pprof/{}", DebugProfile),
        any("GET", "/info", Info),
        any("GET", "/version", Version),
        any("GET", "/system/df", DiskUsage),
        any("POST", "/system/check", StoreCheck),
        any("POST", "/auth", Auth),
        // volumes
        any("GET", "/volumes", VolumeList),
        segment("GET", "/volumes/{}/export", VolumeExport),
        any("GET", "/volumes/{}", VolumeInspect),
        any("POST", "/volumes/create", VolumeCreate),
        any("POST", "/volumes/prune", VolumePrune),
        segment("POST", "/volumes/{}/rename", VolumeRename),
        segment("POST", "/volumes/{}/clone", VolumeClone),
        segment("PUT", "/volumes/{}/import", VolumeImport),
        any("PUT", "/volumes/{}", VolumeUpdate),
        any("DELETE", "/volumes/{}", VolumeRemove),
        // building
        any("POST", "/build", Build),
        any("POST", "/build/prune", BuildPrune),
        any("POST", "/build/cancel", BuildCancel),
        any("POST", "/session", Session),
        any("POST", "/grpc", Grpc),
        // networks
        any("GET", "/networks", NetworkList),
        any("GET", "/networks/", NetworkList),
        any("GET", "/networks/{}", NetworkInspect),
        any("POST", "/networks/create", NetworkCreate),
        any("POST", "/networks/{}/connect", NetworkConnect),
        any("POST", "/networks/{}/disconnect", NetworkDisconnect),
        any("POST", "/networks/prune", NetworkPrune),
        any("DELETE", "/networks/{}", NetworkRemove),
        // plugins
        any("GET", "/plugins", PluginList),
        any("GET", "/plugins/{}/json", PluginMissing),
        any("GET", "/plugins/privileges", PLUGINS),
        any("DELETE", "/plugins/{}", PluginMissing),
        any("POST", "/plugins/{}/enable", PluginMissing),
        any("POST", "/plugins/{}/disable", PluginMissing),
        any("POST", "/plugins/pull", PLUGINS),
        any("POST", "/plugins/{}/push", PluginMissing),
        any("POST", "/plugins/{}/upgrade", PluginMissing),
        any("POST", "/plugins/{}/set", PluginMissing),
        any("POST", "/plugins/create", PLUGINS),
        any("GET", "/distribution/{}/json", Distribution),
        // swarm
        any("POST", "/swarm/init", SWARM),
        any("POST", "/swarm/join", SWARM),
        any("POST", "/swarm/leave", NoSwarm),
        any("GET", "/swarm", NoManager),
        any("GET", "/swarm/unlockkey", NoManager),
        any("POST", "/swarm/update", NoManager),
        any("POST", "/swarm/unlock", NoManager),
        any("GET", "/services", NoManager),
        segment("GET", "/services/{}", NoManager),
        any("POST", "/services/create", NoManager),
        segment("POST", "/services/{}/update", NoManager),
        segment("DELETE", "/services/{}", NoManager),
        segment("GET", "/services/{}/logs", NoManager),
        any("GET", "/nodes", NoManager),
        segment("GET", "/nodes/{}", NoManager),
        segment("DELETE", "/nodes/{}", NoManager),
        segment("POST", "/nodes/{}/update", NoManager),
        any("GET", "/tasks", NoManager),
        segment("GET", "/tasks/{}", NoManager),
        segment("GET", "/tasks/{}/logs", NoManager),
        any("GET", "/secrets", NoManager),
        any("POST", "/secrets/create", NoManager),
        segment("DELETE", "/secrets/{}", NoManager),
        segment("GET", "/secrets/{}", NoManager),
        segment("POST", "/secrets/{}/update", NoManager),
        any("GET", "/configs", NoManager),
        any("POST", "/configs/create", NoManager),
        segment("DELETE", "/configs/{}", NoManager),
        segment("GET", "/configs/{}", NoManager),
        segment("POST", "/configs/{}/update", NoManager),
    ]
};

/// Finds the endpoint of a method and a decoded path without version, with what `{}` matched.
pub fn find<'p>(method: &str, path: &'p str) -> Option<(Endpoint, &'p str)> {
    TABLE.iter().filter(|row| row.method == method).find_map(|row| Some((row.endpoint, row.matches(path)?)))
}

impl Row {
    fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((before, after)) = self.pattern.split_once("{}") else {
            return (self.pattern == path).then_some("");
        };
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        let one = |name: &str| !name.is_empty() && !name.contains('/');
        let fits = match self.wild {
            Wild::Any => true,
            Wild::Segment => one(name),
            Wild::Within(word) => name.rsplit_once(word).is_some_and(|(_, last)| one(last)),
        };
        fits.then_some(name)
    }
}

/// The path without doubled slashes and dot segments, as Go's `path.Clean` leaves it; a trailing slash stays. Clients
/// that send another form are redirected to this one.
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
    let mut cleaned = format!("/{}", parts.join("/"));
    if path.ends_with('/') && cleaned.len() > 1 {
        cleaned.push('/');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_with_slashes_and_odd_names_reach_their_endpoints() {
        assert_eq!(find("GET", "/images/a/b:c/json"), Some((Endpoint::ImageInspect, "a/b:c")));
        assert_eq!(find("GET", "/containers/json"), Some((Endpoint::ContainerList, "")));
        assert_eq!(find("DELETE", "/containers/json"), Some((Endpoint::ContainerRemove, "json")));
        assert_eq!(find("GET", "/containers/a/json/json"), Some((Endpoint::ContainerInspect, "a/json")));
        assert_eq!(
            find("DELETE", "/containers/a/checkpoints/b"),
            Some((Endpoint::CheckpointRemove, "a/checkpoints/b"))
        );
        assert_eq!(find("DELETE", "/containers/a/checkpoints/"), Some((Endpoint::ContainerRemove, "a/checkpoints/")));
        assert_eq!(find("POST", "/exec/x/start"), Some((Endpoint::ExecStart, "x")));
        assert_eq!(find("POST", "/exec/x/stop"), None);
    }

    #[test]
    fn the_wrong_method_finds_nothing() {
        for (method, path) in [("POST", "/version"), ("GET", "/containers/create"), ("HEAD", "/containers/a/json")] {
            assert_eq!(find(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn swarm_paths_take_one_segment() {
        assert_eq!(find("GET", "/nodes/a/b"), None);
        assert_eq!(find("GET", "/nodes/a"), Some((Endpoint::NoManager, "a")));
    }

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("//version", "/version"),
            ("/containers/../version", "/version"),
            ("/a/./b/", "/a/b/"),
            ("/..", "/"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), cleaned);
        }
    }

    proptest! {
        #[test]
        fn routing_never_panics(path in "/[a-z/.{}%]{0,40}") {
            let _ = find("GET", &path);
            let cleaned = clean(&path);
            prop_assert_eq!(clean(&cleaned), cleaned);
        }
    }
}
