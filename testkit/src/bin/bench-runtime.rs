//! OCI runtimes side by side, in one run: medians in microseconds, and ratios to the first.
//!
//! `bench-runtime PROGRAM…`, each an OCI runtime's command; rounds alternate between them. `ROUNDS` (default 40). Needs root and
//! /bin/busybox.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::json;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> std::io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("wharf-bench-").tempdir()?;
        let bin = folder.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin)?;
        std::fs::copy("/bin/busybox", bin.join("busybox"))?;
        for name in ["true", "sleep"] {
            std::os::unix::fs::symlink("busybox", bin.join(name))?;
        }
        Ok(Self { folder })
    }

    fn configure(&self, args: &[&str], memory: bool) -> std::io::Result<()> {
        let mount = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/",
                "noNewPrivileges": true},
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "bench",
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            ],
            "linux": {
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
                    {"type": "cgroup"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/irq", "/proc/bus"],
            },
        });
        if memory {
            config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        }
        std::fs::write(self.folder.path().join("config.json"), config.to_string())
    }

    /// Runs a command of a runtime; what it takes counts only if it succeeds.
    fn call(&self, runtime: &Path, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(self.folder.path().join("state")).args(words).current_dir(self.folder.path());
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|e| format!("{runtime:?}: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("{runtime:?} {words:?}: {status}")) }
    }

    fn whole_life(&self, runtime: &Path) -> Result<(), String> {
        self.call(runtime, &["create", "--bundle", ".", "bench"])?;
        self.call(runtime, &["start", "bench"])?;
        // The program may still be about to end.
        self.call(runtime, &["delete", "--force", "bench"])
    }
}

fn medians(
    runtimes: &[PathBuf],
    rounds: usize,
    measure: impl Fn(&Path) -> Result<(), String>,
) -> Result<Vec<f64>, String> {
    let mut times = vec![Vec::new(); runtimes.len()];
    for round in 0..=rounds {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let start = Instant::now();
            measure(runtime)?;
            // The first round warms caches.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    Ok(times.into_iter().map(median).collect())
}

fn row(name: &str, runtimes: &[PathBuf], medians: &[f64]) {
    let cells: Vec<String> = runtimes
        .iter()
        .zip(medians)
        .map(|(runtime, us)| {
            let label = runtime.file_name().unwrap_or_default().to_string_lossy();
            format!("{label} {us:.0} us ({:.2}x)", us / medians[0])
        })
        .collect();
    println!("{name:<34}{}", cells.join("   "));
}

fn measure(runtimes: &[PathBuf], rounds: usize) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    let bench = Bench::new().map_err(io)?;
    bench.configure(&["/bin/true"], false).map_err(io)?;
    row("create, start, delete of true", runtimes, &medians(runtimes, rounds, |r| bench.whole_life(r))?);
    let run = |r: &Path| bench.call(r, &["run", "--bundle", ".", "bench"]);
    row("run of true", runtimes, &medians(runtimes, rounds, run)?);
    bench.configure(&["/bin/true"], true).map_err(io)?;
    row("the same with a memory limit", runtimes, &medians(runtimes, rounds, run)?);
    bench.configure(&["/bin/sleep", "100000"], false).map_err(io)?;
    let names: Vec<String> = (0..runtimes.len()).map(|n| format!("bench-{n}")).collect();
    for (runtime, name) in runtimes.iter().zip(&names) {
        bench.call(runtime, &["run", "--detach", "--bundle", ".", name])?;
    }
    let name_of = |r: &Path| names[runtimes.iter().position(|other| other == r).unwrap_or(0)].as_str();
    let execs = medians(runtimes, rounds, |r| bench.call(r, &["exec", name_of(r), "/bin/true"]));
    for (runtime, name) in runtimes.iter().zip(&names) {
        bench.call(runtime, &["delete", "--force", name])?;
    }
    row("exec of true", runtimes, &execs?);
    Ok(())
}

fn main() -> ExitCode {
    let runtimes: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    if runtimes.is_empty() {
        eprintln!("usage: bench-runtime RUNTIME...");
        return ExitCode::from(2);
    }
    match measure(&runtimes, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-runtime: {e}");
            ExitCode::FAILURE
        }
    }
}
