//! The daemon's life: claim, listen, open the engine, serve, and the orderly end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use wharf_api_server::{Address, Identity, Listener, Tls, TlsFiles};
use wharf_cgroup::{Layout, Mode};
use wharf_engine::{Engine, Setup};
use wharf_types::InstanceId;

use crate::root::{DataRoot, PidFile};
use crate::settings::{Settings, SettingsError};
use crate::{backends, config, notify};

type Failure = Box<dyn std::error::Error>;

/// The address that every docker client knows.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How long requests at work may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Threads that handle requests. What blocks has threads of its own, so two keep both cores of a small host busy.
const WORKERS: usize = 2;

/// Heaps of the allocator: one for each worker.
const HEAPS: i32 = WORKERS as i32;

/// How often free memory is given back. A burst of requests leaves free pages behind that nobody may need for hours.
const TIDY: Duration = Duration::from_secs(10);

/// Checks everything that can be checked without touching the host.
pub fn check(settings: &Settings) -> Result<(), SettingsError> {
    let instance = InstanceId::from_bytes([0; 6]);
    config::engine(settings, &instance, false)?;
    config::network(settings, &instance)?;
    config::registries(settings)?;
    addresses(settings).map(drop)
}

fn addresses(settings: &Settings) -> Result<Vec<Address>, SettingsError> {
    let given = settings.list("host");
    let default = [DEFAULT_HOST.to_owned()];
    let texts = if given.is_empty() { &default[..] } else { given };
    let parse = |text: &String| {
        Address::parse(text).map_err(|e| SettingsError::Value {
            flag: "host",
            value: text.clone(),
            reason: e.to_string(),
        })
    };
    texts.iter().map(parse).collect()
}

/// Runs the daemon until a signal ends it.
pub fn run(settings: &Settings) -> Result<(), Failure> {
    // Containers have their own masks; the daemon's files must not depend on who started it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    raise_descriptor_limit();
    wharf_sys::memory::limit_heaps(HEAPS);
    let pid_file = PidFile::write(Path::new(settings.text("pidfile")))?;
    let root = DataRoot::claim(&config::folder(settings, "data-root")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(256)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(settings, &root.instance));
    // Streams that clients left open end with the runtime.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(pid_file);
    ended
}

/// Thousands of containers need several descriptors each; systemd's default soft limit is 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

/// The files of TLS, if it is asked for; those not named lie where docker's own command looks for its certificates.
fn tls_files(settings: &Settings) -> Option<TlsFiles> {
    let verify = settings.switch("tlsverify");
    if !verify && !settings.switch("tls") {
        return None;
    }
    let folder = std::env::var_os("DOCKER_CERT_PATH")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".docker"));
    let file = |flag: &str, name: &str| match settings.text(flag) {
        "" => folder.join(name),
        path => PathBuf::from(path),
    };
    Some(TlsFiles {
        certificate: file("tlscert", "cert.pem"),
        key: file("tlskey", "key.pem"),
        clients: verify.then(|| file("tlscacert", "ca.pem")),
    })
}

async fn serve(settings: &Settings, instance: &InstanceId) -> Result<(), Failure> {
    let mut listeners = Vec::new();
    let tls = tls_files(settings).map(|files| Tls::load(&files)).transpose()?;
    for address in addresses(settings)? {
        let group = settings.text("group");
        listeners.extend(match &tls {
            Some(tls) => Listener::bind_encrypted(&address, group, tls).await?,
            None => Listener::bind(&address, group).await?,
        });
    }
    let unified = Layout::detect()?.mode() == Mode::V2;
    let engine = config::engine(settings, instance, unified)?;
    let (data_root, live_restore) = (engine.data_root.clone(), engine.live_restore);
    let network = config::network(settings, instance)?;
    let storage_driver = settings.given("storage-driver").map(str::to_owned);
    let registries = config::registries(settings)?;
    let setup = Setup { config: engine, network, shim: config::shim(settings)?, storage_driver, registries };
    let engine = Arc::new(Engine::open(setup).await?);
    tracing::info!(version = config::VERSION, root = %data_root.display(), %instance, live_restore, "Daemon has completed initialization");

    let (stop, stopping) = watch::channel(false);
    let identity = Identity {
        server: format!("Docker/{} (linux)", config::VERSION),
        api_version: config::API_VERSION.to_owned(),
        min_api_version: config::MIN_API_VERSION.to_owned(),
        experimental: settings.switch("experimental"),
        builder_version: "1".to_owned(),
    };
    let backends = backends::join(engine.clone());
    let server = tokio::spawn(wharf_api_server::serve(listeners, backends, identity, stopping, GRACE));
    tracing::info!("API listen on {}", settings.list("host").join(", "));
    notify::tell("READY=1");

    let tidying = tokio::spawn(async {
        loop {
            tokio::time::sleep(TIDY).await;
            wharf_sys::memory::give_back();
        }
    });
    wait_for_signal().await?;
    tidying.abort();
    notify::tell("STOPPING=1");
    tracing::info!("Processing signal: the daemon shuts down");
    // A second signal means now: what is running is adopted by the next daemon.
    tokio::spawn(async {
        if wait_for_signal().await.is_ok() {
            tracing::warn!("a second signal: leaving at once");
            std::process::exit(128 + 15);
        }
    });
    let _ = stop.send(true);
    server.await?;
    engine.close().await;
    tracing::info!("Daemon shutdown complete");
    Ok(())
}

async fn wait_for_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
            // A terminal that closes must not end the daemon; reloading the configuration comes with a later version.
            _ = hangup.recv() => tracing::info!("Got signal to reload configuration: it is read at the next start"),
        }
    }
}
