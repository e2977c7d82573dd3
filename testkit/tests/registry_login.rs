//! Logins, credential helpers, TLS and settings of registries; and where secrets must not go.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use testkit::registry::{Answer, Fate, Login, Registry, RegistryOptions, layer};
use testkit::{Cli, Daemon, DaemonOptions, Outcome, Session};

fn registry(login: Login) -> Registry {
    let registry = Registry::start(RegistryOptions { login, ..RegistryOptions::default() });
    registry.put_image("app", "v1", "amd64", &[layer("a", 1000)]);
    registry
}

fn basic() -> Registry {
    registry(Login::Basic("bob".into(), "se:cret".into()))
}

fn token() -> Registry {
    registry(Login::Token { user: "bob".into(), password: "se:cret".into(), anonymous_reads: false, uses: 2 })
}

fn log_in(daemon: &Daemon, cli: Cli, host: &str, password: &str) -> Outcome {
    let mut command = daemon.client(cli, &["login", "-u", "bob", "--password-stdin", host]);
    command.stdin(Stdio::piped());
    let mut session = Session::start(command);
    session.send(format!("{password}\n").as_bytes());
    session.finish()
}

fn config(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.folder().join("config/config.json")).unwrap_or_default()
}

#[test]
fn logging_in_by_name_or_token_opens_a_registry_and_logging_out_closes_it() {
    let daemon = Daemon::start(DaemonOptions::default());
    for (registry, password_is_kept) in [(basic(), true), (token(), false)] {
        let name = registry.name("app:v1");
        daemon
            .docker(&["pull", &name])
            .fails(1, "pull access denied, repository does not exist or may require authorization");
        let refused = log_in(&daemon, Cli::Ours, &registry.host(), "wrong");
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("401 Unauthorized"), "{}", refused.stderr);
        for cli in Cli::all() {
            let done = log_in(&daemon, cli, &registry.host(), "se:cret");
            assert_eq!(done.ok(), "Login Succeeded", "{}", done.stderr);
            // A token in the password's place is no password: Docker does not warn of it.
            let warned = done.stderr.contains("Your credentials are stored unencrypted");
            assert_eq!(warned, password_is_kept, "{cli:?}: {}", done.stderr);
            daemon.run(Cli::Ours, &["pull", &name]).ok();
            daemon.run(cli, &["pull", &name]).ok();
            let out = daemon.run(cli, &["logout", &registry.host()]).ok();
            assert_eq!(out, format!("Removing login credentials for {}", registry.host()));
            assert!(!config(&daemon).contains(&registry.host()));
            daemon.docker(&["pull", &name]).fails(1, "pull access denied");
        }
    }
}

#[test]
fn a_token_that_buys_others_is_kept_in_the_passwords_place() {
    let (daemon, registry) = (Daemon::start(DaemonOptions::default()), token());
    log_in(&daemon, Cli::Ours, &registry.host(), "se:cret").ok();
    let kept = config(&daemon);
    assert!(kept.contains("\"identitytoken\": \"an identity\"") && !kept.contains("c2U6Y3JldA"), "{kept}");
    daemon.docker(&["pull", &registry.name("app:v1")]).ok();
    assert!(registry.asked().iter().any(|a| a.method == "POST" && a.path() == "/token"));
}

#[test]
fn a_credential_helper_keeps_logins_out_of_the_file() {
    let (daemon, registry) = (Daemon::start(DaemonOptions::default()), basic());
    let tools = daemon.folder().join("tools");
    std::fs::create_dir_all(&tools).expect("made");
    let script = "#!/bin/sh\nkeep=\"$(dirname \"$0\")/kept\"\ncase \"$1\" in\nstore) cat > \"$keep\" ;;\n\
        get) if [ -e \"$keep\" ]; then cat \"$keep\"; else echo 'credentials not found in native keychain'; exit 1; fi ;;\n\
        erase) rm -f \"$keep\" ;;\nesac\n";
    let helper = tools.join("docker-credential-test");
    std::fs::write(&helper, script).expect("written");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let folder = daemon.folder().join("config");
    std::fs::create_dir_all(&folder).expect("made");
    let text = format!("{{\"credHelpers\": {{\"{}\": \"test\"}}}}", registry.host());
    std::fs::write(folder.join("config.json"), text).expect("written");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let run = |arguments: &[&str]| {
        let mut command = daemon.client(Cli::Ours, arguments);
        command.env("PATH", &path);
        testkit::Session::start(command).finish()
    };
    let done = run(&["login", "-u", "bob", "-p", "se:cret", &registry.host()]);
    assert_eq!(done.ok(), "Login Succeeded");
    assert!(!done.stderr.contains("unencrypted"), "{}", done.stderr);
    assert!(std::fs::read_to_string(tools.join("kept")).expect("kept").contains("\"Secret\":\"se:cret\""));
    assert!(!config(&daemon).contains("auth\":"), "{}", config(&daemon));
    run(&["pull", &registry.name("app:v1")]).ok();
    run(&["logout", &registry.host()]).ok();
    assert!(!tools.join("kept").exists());
    run(&["pull", &registry.name("app:v1")]).fails(1, "pull access denied");
}

#[test]
fn logins_that_cannot_be_asked_for_are_refused_in_dockers_words() {
    let daemon = Daemon::start(DaemonOptions::default());
    daemon
        .docker(&["login", "127.0.0.1:1"])
        .fails(1, "Error: Cannot perform an interactive login from a non TTY device");
    daemon
        .docker(&["login", "--password-stdin", "127.0.0.1:1"])
        .fails(1, "Must provide --username with --password-stdin");
    daemon.docker(&["login", "-u", "a", "-p", "b", "127.0.0.1:1"]).fails(1, "connection refused");
}

/// A daemon that finds the settings of registries in a folder of the test.
fn with_settings(extra: &[&str]) -> (Daemon, std::path::PathBuf) {
    let mut daemon = Daemon::prepare(DaemonOptions::default());
    let folder = daemon.folder().join("certs.d");
    std::fs::create_dir_all(&folder).expect("made");
    let mut arguments = vec!["--registry-certs".to_owned(), folder.display().to_string()];
    arguments.extend(extra.iter().map(|e| (*e).to_owned()));
    daemon.options().arguments = arguments;
    daemon.launch();
    (daemon, folder)
}

#[test]
fn a_registrys_own_authority_and_client_certificates_are_used() {
    let options = RegistryOptions { tls: true, client_certificates: true, ..RegistryOptions::default() };
    let registry = Registry::start(options);
    registry.put_image("app", "v1", "amd64", &[layer("a", 1000)]);
    let (daemon, folder) = with_settings(&[]);
    let name = registry.name("app:v1");
    // Loopback is insecure to Docker: the certificate is not asked for, but ours is.
    assert_ne!(daemon.docker(&["pull", &name]).code, 0);
    let place = folder.join(registry.host());
    std::fs::create_dir(&place).expect("made");
    for file in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(registry.certificates().join(file), place.join(file)).expect("copied");
    }
    daemon.docker(&["pull", &name]).ok();
    std::fs::remove_file(place.join("client.key")).expect("removed");
    daemon.docker(&["pull", &name]).fails(1, "missing key client.key for client certificate client.cert");
}

#[test]
fn hosts_of_a_registry_are_tried_in_order_and_verified() {
    let tls = Registry::start(RegistryOptions { tls: true, ..RegistryOptions::default() });
    let (dead, own) = ("127.0.0.1:1", Registry::plain());
    for registry in [&tls, &own] {
        registry.put_image("app", "v1", "amd64", &[layer("a", 1000)]);
    }
    let (daemon, folder) = with_settings(&[]);
    // A name that no resolver knows: only its hosts are asked.
    let place = folder.join("made-up.invalid");
    std::fs::create_dir(&place).expect("made");
    let authority = tls.authority.as_ref().expect("it speaks TLS");
    let hosts = |ca: &str| {
        format!(
            "server = \"http://{}\"\n[host.\"http://{dead}\"]\n[host.\"https://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n{ca}\n",
            own.host(),
            tls.host()
        )
    };
    std::fs::write(place.join("hosts.toml"), hosts("")).expect("written");
    daemon.docker(&["pull", "made-up.invalid/app:v1"]).ok();
    assert!(tls.asked().is_empty(), "its certificate is not known");
    daemon.docker(&["rmi", "made-up.invalid/app:v1"]).ok();
    own.forget();
    std::fs::write(place.join("hosts.toml"), hosts(&format!("ca = \"{}\"", authority.display()))).expect("written");
    daemon.docker(&["pull", "made-up.invalid/app:v1"]).ok();
    assert!(own.asked().is_empty() && !tls.asked().is_empty());
    // Mirrors are not written to. The registry itself has this image already, but not by this name.
    daemon.docker(&["tag", "made-up.invalid/app:v1", "made-up.invalid/app:v2"]).ok();
    daemon.docker(&["push", "-q", "made-up.invalid/app:v2"]).ok();
    assert!(own.asked().iter().any(|a| a.method == "PUT") && !tls.asked().iter().any(|a| a.method == "PUT"));
    std::fs::write(place.join("hosts.toml"), "[host").expect("written");
    assert!(daemon.docker(&["pull", "made-up.invalid/app:v1"]).stderr.contains("hosts.toml"));
}

#[test]
fn a_mirror_serves_docker_hubs_images_and_gets_no_login() {
    let mirror = registry(Login::None);
    mirror.put_image("library/app", "latest", "amd64", &[layer("a", 1000)]);
    let url = format!("http://{}", mirror.host());
    let daemon = Daemon::start(DaemonOptions {
        arguments: vec!["--registry-mirror".to_owned(), url],
        ..DaemonOptions::default()
    });
    let folder = daemon.folder().join("config");
    std::fs::create_dir_all(&folder).expect("made");
    let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "Ym9iOnNlY3JldA=="}}}"#;
    std::fs::write(folder.join("config.json"), text).expect("written");
    let said = daemon.docker(&["pull", "app"]).ok();
    assert!(said.ends_with("docker.io/library/app:latest"), "{said}");
    assert!(!mirror.asked().is_empty());
    assert!(mirror.asked().iter().all(|a| a.header("authorization").is_none()));
}

#[test]
fn cve_2020_15157_the_host_of_a_redirect_gets_no_login() {
    let daemon = Daemon::start(DaemonOptions::default());
    for registry in [basic(), token()] {
        let thief = Registry::plain();
        let blobs = registry.content().blobs.clone();
        for ((_, digest), bytes) in &blobs {
            thief.content().blobs.insert(("app".to_owned(), digest.clone()), bytes.clone());
        }
        log_in(&daemon, Cli::Ours, &registry.host(), "se:cret").ok();
        let to = thief.host();
        registry.judge(move |ask| match ask.reads_blob() {
            true => Fate::Instead(Answer::status(307).with("Location", format!("http://{to}{}", ask.target))),
            false => Fate::Fair,
        });
        daemon.docker(&["pull", &registry.name("app:v1")]).ok();
        assert!(!thief.asked().is_empty());
        assert!(thief.asked().iter().all(|a| a.header("authorization").is_none()));
        daemon.docker(&["rmi", &registry.name("app:v1")]).ok();
        // It asks for one: it gets none either, and no token is bought from it.
        thief.judge(|_| Fate::Instead(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"give\"")));
        daemon.docker(&["pull", &registry.name("app:v1")]).fails(1, "401 Unauthorized");
        assert!(thief.asked().iter().all(|a| a.header("authorization").is_none()));
    }
}

#[test]
fn cve_2020_15157_layers_that_lie_elsewhere_are_refused() {
    let (daemon, registry, thief) = (Daemon::start(DaemonOptions::default()), basic(), Registry::plain());
    log_in(&daemon, Cli::Ours, &registry.host(), "se:cret").ok();
    let image = registry.put_image("app", "v1", "amd64", &[layer("a", 1000)]);
    let key = ("app".to_owned(), image.manifest.clone());
    let (kind, bytes) = registry.content().manifests[&key].clone();
    let mut document: serde_json::Value = serde_json::from_slice(&bytes).expect("ours");
    document["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", thief.host())]);
    registry.put_manifest("app", "foreign", &kind, &document);
    daemon.docker(&["pull", &registry.name("app:foreign")]).fails(1, "unsupported media type");
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    registry.put_manifest("app", "windows", &kind, &document);
    daemon.docker(&["pull", &registry.name("app:windows")]).fails(1, "unsupported media type");
    assert!(thief.asked().is_empty());
}

#[test]
fn cve_2021_41190_and_2023_25153_hostile_manifests_are_refused() {
    let (daemon, registry) = (Daemon::start(DaemonOptions::default()), registry(Login::None));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let key = ("app".to_owned(), "v1".to_owned());
    let bytes = registry.content().manifests[&key].1.clone();
    let mut document: serde_json::Value = serde_json::from_slice(&bytes).expect("ours");
    document["manifests"] = serde_json::json!([]);
    registry.put_manifest("app", "both", kind, &document);
    daemon.docker(&["pull", &registry.name("app:both")]).fails(1, "a manifest must not have manifests");
    let mut document: serde_json::Value = serde_json::from_slice(&bytes).expect("ours");
    document["annotations"] = serde_json::json!({"a": "x".repeat(9 << 20)});
    registry.put_manifest("app", "huge", kind, &document);
    daemon.docker(&["pull", &registry.name("app:huge")]).fails(1, "that a manifest may have");
    let first = serde_json::json!({"schemaVersion": 1, "name": "app", "fsLayers": [], "signatures": []});
    registry.put_manifest("app", "first", "application/vnd.docker.distribution.manifest.v1+prettyjws", &first);
    daemon.docker(&["pull", &registry.name("app:first")]).fails(1, "is no longer supported");
    // A registry that never stops sending a manifest costs no memory.
    let rest = daemon.rest().get("/v1.51/images/json").json();
    assert_eq!(rest, serde_json::json!([]));
}

#[test]
fn searching_and_asking_a_registry() {
    let (daemon, registry) = (Daemon::start(DaemonOptions::default()), registry(Login::None));
    registry.put_image("team/app", "v1", "amd64", &[layer("a", 1000)]);
    let term = registry.name("app");
    let found = daemon.docker(&["search", &term]).ok();
    assert_eq!(
        found,
        "NAME       DESCRIPTION      STARS     OFFICIAL\napp        about app        10        [OK]\nteam/app   about team/app   9         "
    );
    let names = |arguments: &[&str]| {
        let all: Vec<&str> = [&["search", "--format", "{{.Name}}"], arguments, &[term.as_str()]].concat();
        daemon.docker(&all).ok()
    };
    assert_eq!(names(&["--filter", "is-official=true"]), "app");
    assert_eq!(names(&["--filter", "stars=10"]), "app");
    assert_eq!(names(&["--limit", "1"]), "app");
    daemon.docker(&["search", "--limit", "101", &term]).fails(1, "outside the range of [1, 100]");
    daemon.docker(&["search", "--filter", "nope=1", &term]).fails(1, "invalid filter 'nope'");
    let rest = daemon.rest();
    let answer = rest.get(&format!("/v1.51/distribution/{}/json", registry.name("app:v1"))).json();
    assert_eq!(answer["Descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(answer["Platforms"], serde_json::Value::Null);
    let missing = rest.get(&format!("/v1.51/distribution/{}/json", registry.name("app:nope")));
    assert_eq!((missing.status, missing.json()["message"].as_str()), (404, Some("manifest unknown: manifest unknown")));
}
