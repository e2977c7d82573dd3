use std::collections::BTreeMap;
use std::path::PathBuf;

use wharf_api_types::{ContainerConfig, HostConfig, Ulimit};
use wharf_oci::runtime::NamespaceType;
use wharf_types::InstanceId;

use super::*;
use crate::config::SeccompDefault;
use crate::create::mounts::parse_bind;

fn engine() -> EngineConfig {
    EngineConfig {
        data_root: PathBuf::from("/d"),
        exec_root: PathBuf::from("/r"),
        instance: InstanceId::from_bytes([1; 6]),
        cgroup_parent: "/p".to_owned(),
        cgroupns_mode: "private",
        ipc_mode: "private",
        shm_size: 67_108_864,
        ulimits: vec![Ulimit { name: "nofile".to_owned(), hard: 10, soft: 5 }],
        init: false,
        init_path: None,
        cdi_spec_dirs: Vec::new(),
        no_new_privileges: false,
        log_driver: "json-file".to_owned(),
        log_options: BTreeMap::new(),
        dns: Vec::new(),
        dns_options: Vec::new(),
        dns_search: Vec::new(),
        host_gateway: Vec::new(),
        live: Default::default(),
        seccomp: SeccompDefault::Builtin,
        experimental: false,
        insecure_registries: Vec::new(),
        bridge: String::new(),
        icc: true,
        ip_masq: true,
        host_binding: "0.0.0.0".to_owned(),
        version: String::new(),
        storage_size: None,
        users: None,
        git_commit: String::new(),
        build_time: String::new(),
    }
}

/// Where a launch would find what is behind the points.
fn sources(points: &[Point]) -> Vec<PathBuf> {
    let of = |point: &Point| match &point.source {
        crate::create::mounts::Source::Bind { path, .. } => PathBuf::from(path),
        crate::create::mounts::Source::Volume { name, .. } => PathBuf::from(format!("/d/volumes/{name}/_data")),
        _ => PathBuf::new(),
    };
    points.iter().map(of).collect()
}

fn spec_of(config: &ContainerConfig, host: &HostConfig, points: &[Point]) -> Result<Spec, SpecError> {
    build(&Input {
        engine: &engine(),
        id: "abc",
        config,
        host,
        args: vec!["sleep".to_owned(), "1".to_owned()],
        identity: &Identity { home: Some("/root".to_owned()), ..Identity::default() },
        points,
        sources: &sources(points),
        recursive_read_only: true,
        net: Net::Join("/proc/self/fd/5".into()),
        joined: &[],
        users: None,
        host_name: "box",
        files: &Files { hosts: Some(PathBuf::from("/d/hosts")), ..Files::default() },
        cgroup_v2: false,
    })
}

fn config() -> ContainerConfig {
    ContainerConfig {
        hostname: "h".to_owned(),
        env: Some(vec!["A=1".to_owned(), "PATH=/bin".to_owned(), "A=2".to_owned()]),
        ..ContainerConfig::default()
    }
}

#[test]
fn a_plain_container_gets_dockers_defaults() {
    let spec = spec_of(&config(), &HostConfig::default(), &[]).expect("valid");
    let process = spec.process.expect("has one");
    assert_eq!(process.env, ["PATH=/bin", "HOSTNAME=h", "A=2", "HOME=/root"]);
    let capabilities = process.capabilities.expect("set");
    assert_eq!(capabilities.bounding.len(), 14);
    assert_eq!(capabilities.effective, capabilities.bounding);
    assert_eq!(process.rlimits[0].kind, "RLIMIT_NOFILE");
    let linux = spec.linux.expect("set");
    assert_eq!(linux.cgroups_path.as_deref(), Some("/p/abc"));
    assert_eq!(linux.masked_paths.len(), 12);
    // Which shims have compiled before they are asked.
    assert_eq!(linux.seccomp, Some(wharf_seccomp::usual_profile()));
    let kinds: Vec<_> = linux.namespaces.iter().map(|n| n.kind).collect();
    assert!(kinds.contains(&NamespaceType::Cgroup) && kinds.contains(&NamespaceType::Network));
    let targets: Vec<_> = spec.mounts.iter().map(|m| m.destination.to_string_lossy().into_owned()).collect();
    assert_eq!(
        targets,
        ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm", "/etc/hosts"]
    );
}

#[test]
fn cve_2022_24769_nothing_is_inheritable_or_ambient() {
    for host in [HostConfig::default(), HostConfig { privileged: true, ..HostConfig::default() }] {
        let process = spec_of(&config(), &host, &[]).expect("valid").process.expect("has one");
        let set = process.capabilities.expect("set");
        assert!(set.inheritable.is_empty() && set.ambient.is_empty());
    }
}

#[test]
fn an_unprivileged_user_has_no_capabilities_in_force() {
    let first = spec_of(&config(), &HostConfig::default(), &[]).expect("valid").process.expect("has one");
    let identity = Identity { uid: 1000, gid: 100, groups: vec![100], home: None };
    let input = ExecInput {
        first: &first,
        args: vec!["id".to_owned()],
        env: &[],
        cwd: "",
        tty: true,
        console: [24, 80],
        privileged: false,
        identity: Some(&identity),
    };
    let process = exec_process(&input);
    let set = process.capabilities.expect("set");
    assert!(set.effective.is_empty() && set.permitted.is_empty() && set.bounding.len() == 14);
    assert!(process.env.contains(&"HOME=/".to_owned()) && process.env.contains(&"TERM=xterm".to_owned()));
    assert_eq!((process.user.uid, process.user.gid), (1000, 100));
}

#[test]
fn capabilities_are_added_and_dropped_as_docker_does() {
    let words = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().into());
    let set = |add: &[&str], drop: &[&str]| {
        let host = HostConfig { cap_add: words(add), cap_drop: words(drop), ..HostConfig::default() };
        security::capabilities(&host)
    };
    let all = security::all_capabilities().len();
    assert_eq!(set(&["ALL"], &[]).len(), all);
    assert_eq!(set(&["all"], &["chown"]).len(), all - 1);
    assert_eq!(security::within(u64::MAX).len(), 41);
    assert_eq!(security::within(0b101), ["CAP_CHOWN", "CAP_DAC_READ_SEARCH"]);
    assert_eq!(set(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
    assert_eq!(set(&[], &["CAP_CHOWN"]).len(), 13);
}

#[test]
fn privileged_containers_see_everything_and_have_no_filter() {
    let host = HostConfig { privileged: true, ..HostConfig::default() };
    let spec = spec_of(&config(), &host, &[]).expect("valid");
    let linux = spec.linux.expect("set");
    assert!(linux.seccomp.is_none() && linux.masked_paths.is_empty() && !linux.devices.is_empty());
    let sys = spec.mounts.iter().find(|m| m.destination.to_str() == Some("/sys")).expect("mounted");
    assert!(!sys.options.contains(&"ro".to_owned()));
}

#[test]
fn user_mounts_replace_dockers_own_and_parents_come_first() {
    let points = [
        parse_bind("/a:/x/y/z:ro").expect("valid"),
        parse_bind("v:/x").expect("valid"),
        parse_bind("/shm:/dev/shm").expect("valid"),
        parse_bind("/h:/etc/hosts").expect("valid"),
    ];
    let spec = spec_of(&config(), &HostConfig::default(), &points).expect("valid");
    let at = |target: &str| -> Vec<usize> {
        let found = spec.mounts.iter().enumerate().filter(|(_, m)| m.destination.to_str() == Some(target));
        found.map(|(i, _)| i).collect()
    };
    assert!(at("/x")[0] < at("/x/y/z")[0]);
    assert_eq!((at("/dev/shm").len(), at("/etc/hosts").len()), (1, 1));
    let volume = &spec.mounts[at("/x")[0]];
    assert_eq!(volume.source.as_deref(), Some(std::path::Path::new("/d/volumes/v/_data")));
    let read_only = &spec.mounts[at("/x/y/z")[0]];
    assert_eq!(read_only.options, ["rbind", "rro", "rprivate"]);
}

#[test]
fn limits_reach_the_resources() {
    let host = HostConfig {
        memory: 64 << 20,
        memory_swap: 128 << 20,
        nano_cpus: 1_500_000_000,
        pids_limit: Some(10),
        cpu_shares: 512,
        ..HostConfig::default()
    };
    let resources = spec_of(&config(), &host, &[]).expect("valid").linux.expect("set").resources.expect("set");
    let cpu = resources.cpu.expect("set");
    assert_eq!((cpu.quota, cpu.period, cpu.shares), (Some(150_000), Some(100_000), Some(512)));
    let memory = resources.memory.expect("set");
    assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
    assert_eq!(resources.pids.expect("set").limit, Some(10));
}

#[test]
fn what_cannot_be_had_is_refused_in_dockers_words() {
    let device = wharf_api_types::DeviceMapping {
        path_on_host: "/dev/nosuch".to_owned(),
        path_in_container: "/dev/x".to_owned(),
        ..Default::default()
    };
    let host = HostConfig { devices: Some(vec![device]), ..HostConfig::default() };
    assert_eq!(
        spec_of(&config(), &host, &[]).unwrap_err().to_string(),
        "error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory"
    );
    let host = HostConfig { tmpfs: Some([("/x".to_owned(), "bad".to_owned())].into()), ..HostConfig::default() };
    assert_eq!(spec_of(&config(), &host, &[]).unwrap_err().to_string(), "invalid tmpfs option \"bad\"");
}

#[test]
fn profiles_in_dockers_form_are_read_for_this_container() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[],"syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ALLOW"},
        {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
        {"name":"write","action":"SCMP_ACT_ALLOW"},
        {"names":["x"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390"]}}]}"#;
    let profile = security::profile(json, &[]).expect("valid");
    let names: Vec<_> = profile.syscalls.iter().flat_map(|r| r.names.clone()).collect();
    assert_eq!(names, ["read", "write"]);
    assert!(security::profile("bad", &[]).is_err());
}
