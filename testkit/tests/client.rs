//! The command line's own surroundings: contexts, TLS, ssh, the configuration file, plugins.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use testkit::{Cli, Daemon, DaemonOptions, Outcome};

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// A client without a daemon of its own.
fn alone(cli: Cli, config: &Path, arguments: &[&str]) -> Outcome {
    let mut command = cli.command("", config);
    command.env_remove("DOCKER_HOST").args(arguments);
    testkit::run(command)
}

fn script(path: &Path, content: &str) {
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

#[test]
fn contexts_are_made_used_copied_exported_and_removed() {
    for cli in Cli::all() {
        let place = tempfile::tempdir().expect("temporary folder");
        let config = place.path().join("config");
        fs::create_dir(&config).expect("made");
        fs::write(config.join("config.json"), r#"{"HttpHeaders":{"X":"1"}}"#).expect("written");
        certificates(place.path(), &["far"]);
        let docker = |arguments: &[&str]| alone(cli, &config, arguments);
        let file = |name: &str| text(&place.path().join(name)).to_owned();
        let endpoint = format!(
            "host=tcp://192.0.2.1:2376,ca={},cert={},key={}",
            file("far/ca.pem"),
            file("far/cert.pem"),
            file("far/key.pem")
        );
        let made = docker(&["context", "create", "far", "--description", "words", "--docker", &endpoint]);
        assert_eq!((made.ok().as_str(), made.stderr.trim()), ("far", "Successfully created context \"far\""));
        docker(&["context", "create", "far"]).fails(1, "context \"far\" already exists");
        docker(&["context", "create", "x"]).fails(1, "context name \"x\" is invalid");
        docker(&["context", "create", "default"]).fails(1, "\"default\" is a reserved context name");
        let shown = |name: &str, template: &str| docker(&["context", "inspect", "-f", template, name]).ok();
        assert_eq!(
            shown("far", "{{.Name}} {{.Endpoints.docker.Host}} {{json .TLSMaterial}}"),
            "far tcp://192.0.2.1:2376 {\"docker\":[\"ca.pem\",\"cert.pem\",\"key.pem\"]}"
        );
        let folder = shown("far", "{{.Storage.TLSPath}}");
        let mode = fs::metadata(Path::new(&folder).join("docker/key.pem")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        docker(&["context", "use", "far"]).ok();
        assert_eq!(docker(&["context", "show"]).ok(), "far");
        let stored: serde_json::Value =
            serde_json::from_slice(&fs::read(config.join("config.json")).expect("read")).expect("JSON");
        assert_eq!((&stored["currentContext"], &stored["HttpHeaders"]["X"]), (&"far".into(), &"1".into()));
        let archive = file("archive");
        docker(&["context", "export", "far", &archive]).ok();
        docker(&["context", "export", "far", &archive]).fails(1, "file exists");
        docker(&["context", "import", "copy", &archive]).ok();
        assert_eq!(shown("copy", "{{json .TLSMaterial}}"), shown("far", "{{json .TLSMaterial}}"));
        docker(&["context", "create", "third", "--from", "copy", "--description", "other"]).ok();
        docker(&["context", "update", "third", "--docker", "host=unix:///s,skip-tls-verify=true"]).ok();
        assert_eq!(
            shown("third", "{{.Endpoints.docker.Host}} {{.Endpoints.docker.SkipTLSVerify}} {{json .TLSMaterial}}"),
            "unix:///s true {}"
        );
        docker(&["context", "create", "bad", "--docker", "foo=bar"]).fails(1, "unrecognized config key: foo");
        docker(&["context", "rm", "far"]).fails(1, "context \"far\" is in use, set -f flag to force remove");
        assert_eq!(docker(&["context", "rm", "-f", "far", "copy"]).ok(), "far\ncopy");
        docker(&["context", "rm", "far"]).fails(1, "context \"far\" does not exist");
        assert_eq!(docker(&["context", "ls", "-q"]).ok(), "default\nthird");
        fs::write(place.path().join("evil"), evil_archive()).expect("written");
        assert_ne!(docker(&["context", "import", "evil", &file("evil")]).code, 0);
        assert!(!place.path().join("escaped").exists() && !config.join("escaped").exists());
    }
}

/// A context's archive with a name that leads out of its folder.
fn evil_archive() -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in [("meta.json", "{\"Name\":\"evil\"}"), ("tls/../../../escaped", "x")] {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[148..156].copy_from_slice(b"        ");
        block[156] = b'0';
        block[257..263].copy_from_slice(b"ustar\0");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        archive.extend_from_slice(&block);
        let mut data = content.as_bytes().to_vec();
        data.resize(512, 0);
        archive.extend_from_slice(&data);
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}

/// Writes `ca.pem`, and `cert.pem` and `key.pem` for each name in a folder of that name.
fn certificates(folder: &Path, names: &[&str]) {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("self-signed");
    let issuer = Issuer::new(params, key);
    for name in names {
        let place = folder.join(name);
        fs::create_dir_all(&place).expect("made");
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("signed");
        fs::write(place.join("cert.pem"), certificate.pem()).expect("written");
        fs::write(place.join("key.pem"), key.serialize_pem()).expect("written");
        fs::write(place.join("ca.pem"), authority.pem()).expect("written");
    }
}

#[test]
fn a_daemon_is_reached_by_tls_with_certificates_from_the_environment_and_from_a_context() {
    let mut daemon = Daemon::prepare(DaemonOptions::default());
    let place = daemon.folder().join("tls");
    certificates(&place, &["server", "client"]);
    certificates(&daemon.folder().join("strangers"), &["client"]);
    let file = |name: &str| text(&place.join("server").join(name)).to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let address = format!("tcp://localhost:{port}");
    daemon.options().arguments = [
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("cert.pem"),
        "--tlskey",
        &file("key.pem"),
        "-H",
        &format!("tcp://127.0.0.1:{port}"),
    ]
    .map(str::to_owned)
    .to_vec();
    daemon.launch();
    testkit::base_image(&daemon);
    for cli in Cli::all() {
        let config = daemon.folder().join("config");
        let with = |certificates: &Path, arguments: &[&str]| {
            let mut command = cli.command(&address, &config);
            command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", certificates).args(arguments);
            command
        };
        let client = place.join("client");
        let run = |arguments: &[&str]| testkit::run(with(&client, arguments));
        assert_eq!(run(&["run", "--rm", "busybox", "echo", "by tls"]).ok(), "by tls");
        let mut session = testkit::Session::start(with(&client, &["run", "-i", "--rm", "busybox", "wc", "-c"]));
        session.send(&vec![b'x'; 300_000]);
        assert_eq!(session.finish().text(), "300000");
        // Another authority's client is refused, and so is a daemon that another authority vouches for.
        let stranger = testkit::run(with(&daemon.folder().join("strangers/client"), &["version"]));
        assert_ne!(stranger.code, 0);
        let endpoint = format!("host={address},ca={0}/ca.pem,cert={0}/cert.pem,key={0}/key.pem", text(&client));
        let own = daemon.folder().join(format!("config-{cli:?}"));
        alone(cli, &own, &["context", "create", "far", "--docker", &endpoint]).ok();
        assert_eq!(alone(cli, &own, &["-c", "far", "run", "--rm", "busybox", "echo", "by context"]).ok(), "by context");
        let flags = [
            "--tlsverify",
            "--tlscacert",
            &format!("{}/ca.pem", text(&client)),
            "--tlscert",
            &format!("{}/cert.pem", text(&client)),
            "--tlskey",
            &format!("{}/key.pem", text(&client)),
            "-H",
            &address,
            "version",
            "-f",
            "{{.Server.Os}}",
        ]
        .map(str::to_owned);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        assert_eq!(alone(cli, &config, &flags).ok(), "linux");
    }
}

#[test]
fn a_daemon_is_reached_by_ssh() {
    let daemon = Daemon::with_image();
    // A program in ssh's place: notes what it is called with and does what the other machine would do.
    let place = daemon.folder().join("ssh");
    fs::create_dir(&place).expect("made");
    let dial = format!("exec {} -H {} system dial-stdio", text(&testkit::binaries().join("docker")), daemon.host());
    script(&place.join("ssh"), &format!("#!/bin/sh\necho \"$@\" >> {}/called\n{dial}\n", text(&place)));
    let path = format!("{}:{}", text(&place), std::env::var("PATH").expect("a path"));
    for cli in Cli::all() {
        let config = daemon.folder().join("config");
        let command = |arguments: &[&str]| {
            let mut command = cli.command("ssh://me@far:2222", &config);
            command.env("PATH", &path).args(arguments);
            command
        };
        assert_eq!(testkit::run(command(&["run", "--rm", "busybox", "echo", "by ssh"])).ok(), "by ssh");
        let mut session = testkit::Session::start(command(&["run", "-i", "--rm", "busybox", "cat"]));
        session.send(b"there and back\n");
        assert_eq!(session.finish().text(), "there and back");
        let called = fs::read_to_string(place.join("called")).expect("it was called");
        assert!(called.contains("-l me -p 2222") && called.contains("far docker system dial-stdio"), "{called}");
    }
    let evil = alone(Cli::all()[0], &daemon.folder().join("config"), &["-H", "ssh://-oProxyCommand=touch%20x", "ps"]);
    assert_ne!(evil.code, 0);
}

#[test]
fn headers_and_proxies_of_the_configuration_are_used() {
    let daemon = Daemon::with_image();
    for cli in Cli::all() {
        let config = daemon.folder().join(format!("config-{cli:?}"));
        fs::create_dir(&config).expect("made");
        let json = r#"{"HttpHeaders":{"X-Team":"blue"},"psFormat":"{{.Names}}!",
            "proxies":{"default":{"httpProxy":"http://p:1","noProxy":"intern"}}}"#;
        fs::write(config.join("config.json"), json).expect("written");
        let docker = |arguments: &[&str]| {
            let mut command = cli.command(&daemon.host(), &config);
            command.args(arguments);
            testkit::run(command)
        };
        let script = "echo $HTTP_PROXY $http_proxy $no_proxy ${https_proxy-none}";
        assert_eq!(docker(&["run", "--rm", "busybox", "sh", "-c", script]).ok(), "http://p:1 http://p:1 intern none");
        let own = docker(&["run", "--rm", "-e", "HTTP_PROXY=mine", "busybox", "sh", "-c", "echo $HTTP_PROXY"]);
        assert_eq!(own.ok(), "mine");
        docker(&["create", "--name", "listed", "busybox", "true"]).ok();
        assert_eq!(docker(&["ps", "-a"]).ok(), "listed!");
        docker(&["rm", "listed"]).ok();
        // A daemon that says nothing but hears the request.
        let socket = daemon.folder().join(format!("ear-{cli:?}"));
        let listener = UnixListener::bind(&socket).expect("bound");
        let heard = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let mut buffer = vec![0; 4096];
            let n = client.read(&mut buffer).expect("a request");
            let _ = client.write_all(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            String::from_utf8_lossy(&buffer[..n]).to_lowercase()
        });
        let mut command = cli.command(&format!("unix://{}", text(&socket)), &config);
        command.env("DOCKER_API_VERSION", "1.44").args(["ps"]);
        assert_ne!(testkit::run(command).code, 0);
        let heard = heard.join().expect("heard");
        assert!(heard.contains("x-team: blue"), "{heard}");
    }
}

#[test]
fn a_plugin_gets_the_whole_command_line() {
    let place = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(place.path().join("cli-plugins")).expect("made");
    let metadata = r#"{"SchemaVersion":"0.1.0","Vendor":"us","Version":"1"}"#;
    let content = format!(
        "#!/bin/sh\n[ \"$1\" = docker-cli-plugin-metadata ] && {{ echo '{metadata}'; exit; }}\necho plugin \"$@\"; exit 7\n"
    );
    script(&place.path().join("cli-plugins/docker-hello"), &content);
    for cli in Cli::all() {
        let done = alone(cli, place.path(), &["hello", "--flag", "a b"]);
        assert_eq!((done.code, done.text().as_str()), (7, "plugin hello --flag a b"));
        alone(cli, place.path(), &["nosuch"]).fails(1, "docker: unknown command: docker nosuch");
    }
}

#[test]
fn completion_offers_names_and_manual_pages_are_written() {
    let daemon = Daemon::with_image();
    daemon.docker(&["create", "--name", "first", "busybox", "true"]).ok();
    daemon.docker(&["create", "--name", "second", "busybox", "true"]).ok();
    let offered = daemon.docker(&["__completeNoDesc", "start", "f"]).ok();
    assert!(offered.lines().any(|l| l == "first") && !offered.contains("second"), "{offered}");
    let pages = daemon.folder().join("man");
    daemon.docker(&["__man", text(&pages)]).ok();
    let page = fs::read_to_string(pages.join("docker-run.1")).expect("a page");
    assert!(page.contains("\\fB\\-\\-publish\\fP"), "{page}");
    if let Ok(done) = Command::new("man").arg("--warnings").arg(pages.join("docker-run.1")).output() {
        assert!(!String::from_utf8_lossy(&done.stderr).contains("warning"), "{done:?}");
    }
}
