use super::*;

const DOCKER_LIKE: &str = r#"{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0,"additionalGids":[0,10]},
 "args":["true"],"env":null,"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"]},"oomScoreAdj":0},
 "root":{"path":"rootfs"},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],
 "hooks":{},"linux":{"sysctl":{"net.ipv4.ping_group_range":"0 2147483647"},"resources":{"devices":[{"allow":false,"access":"rwm"}],
 "memory":{"disableOOMKiller":false,"kernelTCP":5},"blockIO":{"throttleReadIOPSDevice":[{"major":1,"minor":2,"rate":3}]}},
 "namespaces":[{"type":"mount"},{"type":"network","path":"/proc/1/ns/net"}],"maskedPaths":["/proc/kcore"],
 "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW",
 "args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}]}]}}}"#;

#[test]
fn a_configuration_reads_and_writes_the_same() {
    let spec: Spec = serde_json::from_str(DOCKER_LIKE).expect("valid");
    let text = serde_json::to_string(&spec).expect("serialises");
    assert_eq!(serde_json::from_str::<Spec>(&text).expect("valid"), spec);
    let linux = spec.linux.as_ref().expect("linux");
    let resources = linux.resources.as_ref().expect("resources");
    assert_eq!(resources.memory.as_ref().and_then(|m| m.kernel_tcp), Some(5));
    assert_eq!(resources.block_io.as_ref().map(|b| b.throttle_read_iops_device[0].rate), Some(3));
    assert_eq!(linux.namespaces[1].kind, NamespaceType::Network);
}

#[test]
fn what_is_absent_is_not_written_and_null_is_absent() {
    let spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.2","mounts":null,"annotations":null}"#).expect("valid");
    assert_eq!(serde_json::to_string(&spec).expect("serialises"), r#"{"ociVersion":"1.0.2"}"#);
}

#[test]
fn unknown_fields_are_ignored_and_unknown_actions_refused() {
    assert!(serde_json::from_str::<Spec>(r#"{"ociVersion":"9","future":{"a":1}}"#).is_ok());
    assert!(serde_json::from_str::<LinuxSeccomp>(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#).is_err());
    assert!(serde_json::from_str::<Namespace>(r#"{"type":"moon"}"#).is_err());
}

#[test]
fn names_with_initials_follow_the_specification() {
    let mut spec = Spec { process: Some(Process::default()), ..Spec::default() };
    if let Some(p) = spec.process.as_mut() {
        p.exec_cpu_affinity = Some(CpuAffinity { initial: None, last: Some("0".to_owned()) });
    }
    spec.linux = Some(Linux {
        uid_mappings: vec![IdMapping { host_id: 1, container_id: 0, size: 1 }],
        intel_rdt: Some(IntelRdt { clos_id: Some("c".to_owned()), ..IntelRdt::default() }),
        ..Linux::default()
    });
    let text = serde_json::to_string(&spec).expect("serialises");
    for name in
        ["\"execCPUAffinity\":{\"final\":\"0\"}", "\"hostID\":1,\"containerID\":0", "\"closID\"", "\"uidMappings\""]
    {
        assert!(text.contains(name), "{name} in {text}");
    }
}
