//! What dockerd 28.5 emits keeps its exact form through our types, and requests are read as leniently as Go reads them.

use serde::{Serialize, de::DeserializeOwned};
use wharf_api_types as api;

/// Reads a text and writes it again: both must be the same, order, nulls and absences included.
fn keeps<T: DeserializeOwned + Serialize>(text: &str) {
    let value: T = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(serde_json::to_string(&value).expect("serialises"), text);
}

#[test]
fn a_running_container_s_inspection_keeps_its_form() {
    keeps::<api::ContainerInspect>(include_str!("inspect.json").trim_end());
}

#[test]
fn a_container_s_row_keeps_its_form() {
    keeps::<api::ContainerSummary>(
        r#"{"Id":"a1","Names":["/n"],"Image":"busybox","ImageID":"sha256:b","ImageManifestDescriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:b","size":405,"platform":{"architecture":"amd64","os":"linux"}},"Command":"sleep 600","Created":1795286614,"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":18999,"Type":"tcp"},{"PrivatePort":90,"Type":"udp"}],"SizeRw":4096,"SizeRootFs":2134016,"Labels":{"a":"b"},"State":"running","Status":"Up 1 second (health: starting)","HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"42:87:0f:af:a8:c0","DriverOpts":null,"GwPriority":0,"NetworkID":"c","EndpointID":"d","Gateway":"172.29.0.1","IPAddress":"172.29.0.2","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}},"Mounts":[{"Type":"tmpfs","Source":"","Destination":"/x","Mode":"","RW":true,"Propagation":""}]}"#,
    );
}

#[test]
fn a_sample_of_resource_use_keeps_its_form() {
    keeps::<api::ContainerStats>(include_str!("stats.json").trim_end());
}

#[test]
fn an_exec_s_inspection_keeps_its_form() {
    keeps::<api::ExecInspect>(
        r#"{"ID":"00000000000000000000000000000000000000000000000000000000000000a2","Running":false,"ExitCode":null,"ProcessConfig":{"tty":false,"entrypoint":"true","arguments":[],"privileged":false,"user":"0"},"OpenStdin":false,"OpenStderr":false,"OpenStdout":true,"CanRemove":false,"ContainerID":"00000000000000000000000000000000000000000000000000000000000000a0","DetachKeys":"","Pid":0}"#,
    );
}

#[test]
fn images_keep_their_forms() {
    keeps::<api::ImageSummary>(
        r#"{"Containers":2,"Created":1795285805,"Id":"sha256:c7","Labels":null,"ParentId":"","Descriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:c7","size":405},"Manifests":[{"ID":"sha256:c7","Descriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:c7","size":405},"Available":true,"Size":{"Content":1141998,"Total":3251438},"Kind":"image","ImageData":{"Platform":{"architecture":"amd64","os":"linux"},"Size":{"Unpacked":2109440},"Containers":["a"]}}],"RepoDigests":["busybox@sha256:c7"],"RepoTags":["busybox:latest"],"SharedSize":-1,"Size":3251438}"#,
    );
    keeps::<api::ImageInspect>(
        r#"{"Id":"sha256:c7","RepoTags":["busybox:latest"],"RepoDigests":["busybox@sha256:c7"],"Parent":"","Comment":"Imported from -","Created":"2026-11-21T18:30:05.799271354Z","DockerVersion":"","Author":"","Architecture":"amd64","Os":"linux","Size":1141998,"GraphDriver":{"Data":null,"Name":"overlayfs"},"RootFS":{"Type":"layers","Layers":["sha256:1b"]},"Metadata":{"LastTagTime":"2026-11-21T18:30:05.806205121Z"},"Descriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:c7","size":405},"Config":{"Cmd":null,"Entrypoint":null,"Env":null,"Labels":null,"OnBuild":null,"User":"","Volumes":null,"WorkingDir":""}}"#,
    );
    keeps::<api::ImageHistoryItem>(
        r#"{"Comment":"Imported from -","Created":1795285805,"CreatedBy":"","Id":"sha256:c7","Size":2109440,"Tags":["busybox:latest"]}"#,
    );
}

#[test]
fn networks_and_volumes_keep_their_forms() {
    keeps::<api::Network>(
        r#"{"Name":"bridge","Id":"87","Created":"2026-11-21T18:30:05.628716572Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"172.29.0.0/16","Gateway":"172.29.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"c5":{"Name":"n","EndpointID":"f2","MacAddress":"42:87:0f:af:a8:c0","IPv4Address":"172.29.0.2/16","IPv6Address":""}},"Options":{"com.docker.network.driver.mtu":"1500"},"Labels":{}}"#,
    );
    keeps::<api::VolumeList>(
        r#"{"Volumes":[{"CreatedAt":"2026-11-21T18:43:12Z","Driver":"local","Labels":null,"Mountpoint":"/data/volumes/v/_data","Name":"v","Options":null,"Scope":"local","UsageData":{"RefCount":1,"Size":0}}],"Warnings":null}"#,
    );
}

#[test]
fn events_of_containers_and_images_carry_the_old_fields_too() {
    let at = wharf_types::Timestamp::from_unix(1_795_286_592, 111_757_712);
    let attributes = api::StringMap::from([("image".to_owned(), "busybox".to_owned())]);
    let line = |kind: &str| {
        let event = api::EventMessage::new(kind, "create", "d5", attributes.clone(), at);
        serde_json::to_string(&event).expect("serialises")
    };
    assert_eq!(
        line("container"),
        r#"{"status":"create","id":"d5","from":"busybox","Type":"container","Action":"create","Actor":{"ID":"d5","Attributes":{"image":"busybox"}},"scope":"local","time":1795286592,"timeNano":1795286592111757712}"#
    );
    assert!(line("image").starts_with(r#"{"status":"create","id":"d5","Type":"image""#));
    assert!(line("volume").starts_with(r#"{"Type":"volume""#));
}

#[test]
fn requests_take_null_absence_and_unknown_keys_anywhere() {
    let text = r#"{"Image":"b","Tty":null,"Env":null,"Cmd":"one","Labels":null,"New":{"x":[1]},
        "HostConfig":{"Memory":null,"PortBindings":{"80/tcp":null},"Binds":null,"RestartPolicy":null,
        "ConsoleSize":null,"Ulimits":[{"Name":"nofile","Soft":1}],"PidsLimit":null,"OomKillDisable":true},
        "NetworkingConfig":{"EndpointsConfig":{"n":null}}}"#;
    let request: api::ContainerCreateRequest = serde_json::from_str(text).expect("lenient");
    assert_eq!(request.config.cmd.map(|c| c.0), Some(vec!["one".to_owned()]));
    let host = request.host_config.expect("given");
    assert_eq!((host.memory, host.oom_kill_disable, host.pids_limit), (0, Some(true), None));
    assert_eq!(host.port_bindings.expect("given").get("80/tcp"), Some(&None));
    assert_eq!(host.ulimits.expect("given")[0].hard, 0);
}

#[test]
fn a_request_that_a_client_writes_reads_back_the_same() {
    let config = api::ContainerConfig { image: "b".to_owned(), stop_timeout: Some(0), ..Default::default() };
    let host = api::HostConfig { init: Some(false), dns: Some(vec![]), ..Default::default() };
    let request =
        api::ContainerCreateRequest { config, host_config: Some(host), networking_config: Some(Default::default()) };
    let text = serde_json::to_string(&request).expect("serialises");
    assert!(text.contains(r#""StopTimeout":0"#) && text.contains(r#""Init":false"#) && text.contains(r#""Dns":[]"#));
    assert_eq!(serde_json::from_str::<api::ContainerCreateRequest>(&text).expect("reads"), request);
}
