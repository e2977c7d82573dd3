//! Golden answers of dockerd 28.5 to create requests that it refuses or warns about.

use wharf_api_types::{ContainerConfig, HostConfig};
use wharf_error::{HasKind, Kind};

use super::{CreateError, Host, request, validate};

fn facts() -> Host {
    Host { cpus: 2, cpuset: "0-1".to_owned(), mems: "0".to_owned(), blkio_weight: false, real_time: true }
}

/// Checks a host configuration given as the JSON that a client sends.
fn check(host: &str) -> Result<Vec<String>, CreateError> {
    let mut host: HostConfig = serde_json::from_str(host).expect("JSON");
    let config = ContainerConfig { image: "busybox".to_owned(), ..ContainerConfig::default() };
    let warnings = validate::check(&config, &mut host, &crate::config::Runtimes::default(), &facts())?;
    request::points(&config, &host, &[])?;
    Ok(warnings)
}

#[test]
fn refusals_are_worded_as_dockers() {
    for (host, kind, text) in [
        (r#"{"Memory":1000}"#, Kind::Invalid, "Minimum memory limit allowed is 6MB"),
        (
            r#"{"Memory":10000000,"MemorySwap":5000000}"#,
            Kind::Invalid,
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            r#"{"MemorySwap":50000000}"#,
            Kind::Invalid,
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            r#"{"NanoCpus":100000000000}"#,
            Kind::Invalid,
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (r#"{"CpusetCpus":"99"}"#, Kind::Invalid, "Requested CPUs are not available - requested 99, available: 0-1"),
        (r#"{"CpusetCpus":"1-0"}"#, Kind::Invalid, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        (r#"{"OomScoreAdj":2000}"#, Kind::Invalid, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (r#"{"IpcMode":"x"}"#, Kind::Invalid, "invalid IPC mode: x"),
        (
            r#"{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}"#,
            Kind::Invalid,
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            r#"{"RestartPolicy":{"Name":"bad"}}"#,
            Kind::Invalid,
            "invalid restart policy: unknown policy 'bad'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (r#"{"CapAdd":["bad"]}"#, Kind::Invalid, "invalid CapAdd: unknown capability: \"CAP_BAD\""),
        (r#"{"Runtime":"nosuch"}"#, Kind::Invalid, "unknown or invalid runtime name: nosuch"),
        (
            r#"{"PortBindings":{"80/tcp":[{"HostPort":"99999"}]}}"#,
            Kind::Invalid,
            "invalid port specification: \"99999\"",
        ),
        (r#"{"ExtraHosts":["a:b"]}"#, Kind::Invalid, "invalid IP address in add-host: \"b\""),
        (r#"{"SecurityOpt":["bad"]}"#, Kind::System, "invalid --security-opt 1: \"bad\""),
        (r#"{"Binds":["/a:/b:zzz"]}"#, Kind::System, "invalid mode: zzz"),
        (r#"{"Binds":["/tmp:/b","/var:/b"]}"#, Kind::Invalid, "Duplicate mount point: /b"),
        (
            r#"{"Binds":["/a:/"]}"#,
            Kind::System,
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: \
             destination can't be '/'",
        ),
        (
            r#"{"Binds":["a/b:/x"]}"#,
            Kind::Invalid,
            "create a/b: \"a/b\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (
            r#"{"Mounts":[{"Type":"bind","Source":"/nosuch","Target":"/x"}]}"#,
            Kind::Invalid,
            "invalid mount config for type \"bind\": bind source path does not exist: /nosuch",
        ),
        (
            r#"{"Mounts":[{"Type":"bad","Target":"/x"}]}"#,
            Kind::Invalid,
            "invalid mount config for type \"bad\": mount type unknown",
        ),
        (
            r#"{"LogConfig":{"Type":"json-file","Config":{"foo":"1"}}}"#,
            Kind::Invalid,
            "unknown log opt 'foo' for json-file log driver",
        ),
        (
            r#"{"LogConfig":{"Type":"nosuch"}}"#,
            Kind::Invalid,
            "error looking up logging plugin nosuch: plugin \"nosuch\" not found",
        ),
        (
            r#"{"NetworkMode":"container:x","Dns":["1.1.1.1"]}"#,
            Kind::Invalid,
            "conflicting options: dns and the network mode",
        ),
    ] {
        let error = check(host).expect_err(host);
        assert_eq!((error.to_string().as_str(), error.kind()), (text, kind), "{host}");
    }
}

#[test]
fn warnings_are_worded_as_dockers() {
    for (host, warning) in [
        (r#"{"CpuPercent":50}"#, "linux does not support CPU percent. Percent discarded."),
        (
            r#"{"BlkioWeight":500}"#,
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        ),
        (
            r#"{"NetworkMode":"host","PortBindings":{"80/tcp":[{"HostPort":"1"}]}}"#,
            "Published ports are discarded when using host network mode",
        ),
    ] {
        assert_eq!(check(host), Ok(vec![warning.to_owned()]), "{host}");
    }
    assert_eq!(check("{}"), Ok(Vec::new()));
}
