//! Rows of images: `ROWS=images`. A peer registry is Debian's `docker-registry`, where it is installed; ours else, which is
//! printed.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::registry::{Registry, layer};

use crate::{Engine, median, print};

/// Files of the large image, and bytes of each: 300 MB in all.
const FILES: usize = 20_000;
const SIZE: usize = 15_000;
/// Images in the long list.
const MANY: usize = 500;

type Step<'a> = &'a dyn Fn(&Engine) -> Result<(), String>;

/// The middle of `rounds` timings of one step, with one before and one after it that are not timed.
fn timed(
    engines: &[Engine],
    rounds: usize,
    before: Step<'_>,
    step: Step<'_>,
    after: Step<'_>,
) -> Result<Vec<f64>, String> {
    let mut times = vec![Vec::new(); engines.len()];
    for round in 0..=rounds {
        for (engine, times) in engines.iter().zip(&mut times) {
            before(engine)?;
            let start = Instant::now();
            step(engine)?;
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            after(engine)?;
        }
    }
    Ok(times.into_iter().map(median).collect())
}

/// A tar archive of many files, each half text and half noise, so that it compresses about as software does.
fn tree(path: &Path) -> Result<(), String> {
    let wrong = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = std::io::BufWriter::new(std::fs::File::create(path).map_err(wrong)?);
    let mut archive = tar::Builder::new(file);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; SIZE];
    for n in 0..FILES {
        for (at, byte) in bytes.iter_mut().enumerate() {
            if at % 2 == 0 {
                *byte = b"the usual words of a program "[at / 2 % 29];
            } else {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *byte = (state >> 32) as u8;
            }
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(SIZE as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        archive.append_data(&mut header, format!("usr/lib/d{}/f{n}", n % 500), bytes.as_slice()).map_err(wrong)?;
    }
    archive.into_inner().and_then(|mut file| file.flush()).map_err(wrong)
}

/// A registry for both engines.
enum Host {
    Debian { child: Child, port: u16, _folder: tempfile::TempDir },
    Ours(Registry),
}

impl Host {
    fn start() -> Result<Self, String> {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join("docker-registry"))
            .find(|program| program.exists());
        let Some(program) = found else {
            println!("docker-registry is not installed: the pulls are from a registry of ours");
            return Ok(Host::Ours(Registry::plain()));
        };
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let free =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{free}'}}\n",
            folder.path().join("data").display()
        );
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("docker-registry: {e}"))?;
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(free).is_err() {
            if Instant::now() > end {
                return Err("docker-registry does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Host::Debian { child, port: free.port(), _folder: folder })
    }

    fn name(&self, rest: &str) -> String {
        match self {
            Host::Debian { port, .. } => format!("127.0.0.1:{port}/{rest}"),
            Host::Ours(registry) => registry.name(rest),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Host::Debian { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The way a person would: each layer by curl, gzip and tar. Says how long it took, in milliseconds.
fn by_hand(name: &str) -> Result<f64, String> {
    let (host, rest) = name.split_once('/').ok_or("no host")?;
    let (repository, tag) = rest.rsplit_once(':').ok_or("no tag")?;
    let into = tempfile::tempdir().map_err(|e| e.to_string())?;
    let script = format!(
        "set -e; set -o pipefail; cd {}; base=http://{host}/v2/{repository}; \
         accept='Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json'; \
         for layer in $(curl -sf -H \"$accept\" $base/manifests/{tag} | grep -o 'sha256:[0-9a-f]*' | tail -n +2); do \
         curl -sfL $base/blobs/$layer | gzip -dcf | tar -x; done",
        into.path().display()
    );
    let start = Instant::now();
    let done = Command::new("bash").arg("-c").arg(script).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let took = start.elapsed().as_secs_f64() * 1000.0;
    if done.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// The daemon's peak of resident memory while something happens, in MB.
fn peak(engine: &Engine, what: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
    // proc(5): 5 resets the peak.
    std::fs::write(format!("/proc/{}/clear_refs", engine.pid), "5").map_err(|e| e.to_string())?;
    what()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid)).map_err(|e| e.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kb: f64 = line.trim().trim_end_matches(" kB").trim().parse().map_err(|_| "no VmHWM")?;
    Ok(kb / 1024.0)
}

/// All rows of images.
pub(crate) fn rows(engines: &[Engine], rounds: usize, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let (plain, saved) = (path("tree.tar"), path("saved.tar"));
    let (plain_text, saved_text) = (plain.display().to_string(), saved.display().to_string());
    tree(&plain)?;
    let rounds = rounds.min(5);
    let nothing: Step<'_> = &|_| Ok(());
    let import: Step<'_> = &|e| e.docker(&["import", &plain_text, "bench:tree"]);
    let remove: Step<'_> = &|e| e.docker(&["rmi", "bench:tree"]);
    let row = |name: &str, before: Step<'_>, step: Step<'_>, after: Step<'_>| -> Result<(), String> {
        if wanted(name) {
            print(name, "ms", &timed(engines, rounds, before, step, after)?);
        }
        Ok(())
    };
    row("import of 300 MB in 20,000 files", nothing, import, remove)?;
    row("rmi of it", import, remove, nothing)?;
    // One archive for both, with a compressed layer as Docker's own: made by the peer, where there is one.
    let maker = engines.last().ok_or("no engine")?;
    import(maker)?;
    maker.docker(&["save", "-o", &saved_text, "bench:tree"])?;
    remove(maker)?;
    let load: Step<'_> = &|e| e.docker(&["load", "-q", "-i", &saved_text]);
    row("load of it", nothing, load, remove)?;
    let host = Host::start()?;
    let name = host.name("bench/tree:v1");
    load(maker)?;
    maker.docker(&["tag", "bench:tree", &name])?;
    maker.docker(&["push", "-q", &name])?;
    maker.docker(&["rmi", &name, "bench:tree"])?;
    let pull: Step<'_> = &|e| e.docker(&["pull", "-q", &name]);
    let leave: Step<'_> = &|e| e.docker(&["rmi", &name]);
    row("pull of it from a loopback registry", nothing, pull, leave)?;
    if wanted("curl | gzip -d | tar -x of the same, by hand") {
        let times = (0..rounds).map(|_| by_hand(&name)).collect::<Result<Vec<_>, _>>()?;
        print("curl | gzip -d | tar -x of the same, by hand", "ms", &[median(times)]);
    }
    engines.iter().try_for_each(pull)?;
    row("push of it, unchanged", nothing, &|e| e.docker(&["push", "-q", &name]), nothing)?;
    engines.iter().try_for_each(leave)?;
    if wanted("peak memory of dockerd, pull of 1 GB") {
        let registry = Registry::plain();
        let layers: Vec<_> = (0..4).map(|n| layer(&format!("part{n}"), 256 << 20)).collect();
        registry.put_image("large", "v1", "amd64", &layers);
        drop(layers);
        let name = registry.name("large:v1");
        let mut peaks = Vec::new();
        for engine in engines {
            peaks.push(peak(engine, || engine.docker(&["pull", "-q", &name]))?);
            engine.docker(&["rmi", &name])?;
        }
        print("peak memory of dockerd, pull of 1 GB", "MB", &peaks);
    }
    if wanted("images, 500 of them") {
        let small = path("small.tar");
        let names: Vec<String> = (0..MANY).map(|n| format!("bench-many:{n}")).collect();
        for engine in engines {
            for (n, name) in names.iter().enumerate() {
                let content = n.to_string();
                let bytes = testkit::registry::tar_of(&[("number", content.as_bytes())]);
                std::fs::write(&small, bytes).map_err(|e| e.to_string())?;
                engine.docker(&["import", &small.display().to_string(), name])?;
            }
        }
        row("images, 500 of them", nothing, &|e| e.docker(&["images"]), nothing)?;
        let mut arguments = vec!["rmi"];
        arguments.extend(names.iter().map(String::as_str));
        engines.iter().try_for_each(|engine| engine.docker(&arguments))?;
    }
    Ok(())
}
