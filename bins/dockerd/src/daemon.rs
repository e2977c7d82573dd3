//! The daemon's life: claim, listen, open the engine, serve, and the orderly end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use wharf_api_server::{Address, Identity, Listener, Tls, TlsFiles};
use wharf_cgroup::{Layout, Mode};
use wharf_engine::config::EngineConfig;
use wharf_engine::{Engine, Setup};
use wharf_network::NetworkConfig;
use wharf_plugin::Plugins;
use wharf_types::InstanceId;

use crate::authorization::Authorization;
use crate::log::LevelHandle;
use crate::remap::Place;
use crate::root::{DataRoot, PidFile};
use crate::settings::{Settings, SettingsError};
use crate::{backends, config, notify, remap};

type Failure = Box<dyn std::error::Error>;

/// The address that every docker client knows.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How long requests at work may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Threads that handle requests. What blocks has threads of its own, so two keep both cores of a small host busy.
const WORKERS: usize = 2;

/// Heaps of the allocator: one for each worker.
const HEAPS: i32 = WORKERS as i32;

/// How often memory is given back while there is work. A burst of requests leaves pages behind that nobody may need for hours.
const TIDY: Duration = Duration::from_secs(5);

/// Time of a processor per [`TIDY`] below which the daemon counts as idle: looks at health and readings for stats take less.
const IDLE: Duration = Duration::from_millis(20);

/// Gives back what a start and, later, each spell of work leaves behind: free memory of the heaps, and pages of the program.
async fn tidy() {
    use wharf_sys::memory::{forget_program, give_back, processor_time};
    let (mut used, mut worked) = (processor_time(), false);
    forget_program();
    loop {
        tokio::time::sleep(TIDY).await;
        let works = processor_time().saturating_sub(used) > IDLE;
        if works || worked {
            give_back();
        }
        if worked && !works {
            forget_program();
        }
        (used, worked) = (processor_time(), works);
    }
}

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
pub fn run(settings: &Settings, arguments: &[String], level: LevelHandle) -> Result<(), Failure> {
    // Containers have their own masks; the daemon's files must not depend on who started it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    raise_descriptor_limit();
    wharf_sys::memory::limit_heaps(HEAPS);
    let pid_file = PidFile::write(Path::new(settings.text("pidfile")))?;
    let place = remap::place(settings)?;
    let root = DataRoot::claim(&place.data_root)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(settings, &root.instance, place, Reloading { arguments, level }));
    // Streams that clients left open end with the runtime.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(pid_file);
    ended
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(256)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
}

/// Says what a stopped Docker engine left and, if that is asked for, takes it over. Returns whether nothing failed.
pub fn import(settings: &Settings, from: &Path) -> Result<bool, Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let found = wharf_engine::takeover::look(from)?;
    print!("{}", found.plan());
    if !settings.switch("import-apply") {
        println!("nothing is changed: add --import-apply to take this over into {}", settings.text("data-root"));
        return Ok(true);
    }
    let _pid_file = PidFile::write(Path::new(settings.text("pidfile")))?;
    let place = remap::place(settings)?;
    let root = DataRoot::claim(&place.data_root)?;
    runtime()?.block_on(async {
        let unified = Layout::detect()?.mode() == Mode::V2;
        let engine = Engine::open(setup(settings, &root.instance, place, unified)?).await?;
        let complete = engine.take_over(found, &mut |line| println!("{line}")).await;
        engine.close().await;
        Ok(complete)
    })
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

/// What the engine is opened with.
fn setup(settings: &Settings, instance: &InstanceId, place: Place, unified: bool) -> Result<Setup, Failure> {
    let plugins = Arc::new(Plugins::new(config::plugin_folders(settings)));
    Ok(Setup {
        network: NetworkConfig {
            plugins: plugins.clone(),
            users: place.users.clone(),
            ..config::network(settings, instance)?
        },
        config: EngineConfig {
            data_root: place.data_root,
            users: place.users,
            ..config::engine(settings, instance, unified)?
        },
        shim: config::shim(settings)?,
        storage_driver: settings.given("storage-driver").map(str::to_owned),
        registries: config::registries(settings)?,
        plugins,
        kept: wharf_build::kept_snapshots,
    })
}

async fn serve(
    settings: &Settings,
    instance: &InstanceId,
    place: Place,
    mut reloading: Reloading<'_>,
) -> Result<(), Failure> {
    let metrics = metrics_listener(settings).await?;
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
    let setup = setup(settings, instance, place, unified)?;
    let (data_root, live_restore) = (setup.config.data_root.clone(), setup.config.live.get().live_restore);
    let plugins = setup.plugins.clone();
    let engine = Arc::new(Engine::open(setup).await?);
    tracing::info!(version = config::VERSION, root = %data_root.display(), %instance, live_restore, "Daemon has completed initialization");

    let (stop, stopping) = watch::channel(false);
    let identity = Identity {
        server: format!("Docker/{} (linux)", config::VERSION),
        api_version: config::API_VERSION.to_owned(),
        min_api_version: config::MIN_API_VERSION.to_owned(),
        experimental: settings.switch("experimental"),
        builder_version: "2".to_owned(),
    };
    let authorization = Arc::new(Authorization::new(plugins, settings.list("authorization-plugin")));
    let backends = backends::join(engine.clone(), authorization.clone(), settings.collection().clone());
    if let Some(listener) = metrics {
        let source = engine.clone();
        let text = Arc::new(move || wharf_engine::metrics::text(&source));
        tokio::spawn(wharf_api_server::metrics::serve(listener, text, stopping.clone()));
    }
    let server = tokio::spawn(wharf_api_server::serve(listeners, backends, identity, stopping, GRACE));
    tracing::info!("API listen on {}", settings.list("host").join(", "));
    let mut signals = Signals::listen()?;
    notify::tell("READY=1");
    let tidying = tokio::spawn(tidy());
    while signals.next().await == Wish::Reload {
        reloading.reload(&engine, &authorization);
    }
    tidying.abort();
    notify::tell("STOPPING=1");
    tracing::info!("Processing signal: the daemon shuts down");
    // A second signal means now: what is running is adopted by the next daemon.
    tokio::spawn(async move {
        while signals.next().await == Wish::Reload {}
        tracing::warn!("a second signal: leaving at once");
        std::process::exit(128 + 15);
    });
    let _ = stop.send(true);
    server.await?;
    engine.close().await;
    tracing::info!("Daemon shutdown complete");
    Ok(())
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    End,
    Reload,
}

/// What reading the configuration again needs.
struct Reloading<'a> {
    arguments: &'a [String],
    level: LevelHandle,
}

impl Reloading<'_> {
    /// Reads the configuration again and changes what can be changed while the daemon runs: debug and log level, labels,
    /// live-restore, shutdown timeout, runtimes, authorisation plugins. A file with a fault changes nothing.
    fn reload(&mut self, engine: &Engine, authorization: &Authorization) {
        let read = Settings::read(self.arguments).and_then(|settings| {
            settings.check_effects()?;
            check(&settings)?;
            Ok((config::live(&settings)?, settings))
        });
        let (live, settings) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "the configuration is not reloaded");
                return;
            }
        };
        tracing::info!("Got signal to reload configuration, reloading from: {}", settings.text("config-file"));
        if self.level.modify(|level| *level = crate::log::level(&settings)).is_err() {
            tracing::warn!("the log level cannot be changed");
        }
        authorization.replace(settings.list("authorization-plugin"));
        tracing::info!(?live, "Reloaded configuration");
        engine.reload(live);
    }
}

/// Binds `--metrics-addr`; one that cannot be bound fails the start.
async fn metrics_listener(settings: &Settings) -> Result<Option<tokio::net::TcpListener>, Failure> {
    let Some(address) = settings.given("metrics-addr") else { return Ok(None) };
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|e| format!("failed to start metrics server: listen tcp {address}: {e}"))?;
    tracing::info!("metrics are served on {}", listener.local_addr()?);
    Ok(Some(listener))
}

/// The signals that mean something. Listened to from one place, so that none is missed between two looks.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.quit.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}
