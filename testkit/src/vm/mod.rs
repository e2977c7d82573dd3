//! A virtual machine with Debian's 6.1 kernel and cgroup v2, without root file system: for what this host's kernel lacks.
//!
//! ```no_run
//! let outcome = testkit::vm::Machine::new().file("/usr/bin/true", "/bin/x").run("x; cat /sys/fs/cgroup/cgroup.controllers");
//! assert_eq!(outcome.status, Some(0), "{outcome:?}");
//! ```
//!
//! The script runs in busybox's sh as root, with /proc, /sys, /dev, cgroup2, the modules of [`MODULES`] and `lo` up, on a tmpfs
//! (so that pivot_root works, which refuses an initramfs). It is emulated in software: a boot takes about four seconds, the rest
//! is five to twenty times slower than here. Needs qemu-system-x86, busybox-static, kmod, apt and dpkg.

mod cpio;
mod kernel;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cpio::Archive;
use kernel::Kernel;

/// What every guest loads, as far as its kernel has it as modules: what dockerd needs, and CRIU.
pub const MODULES: &[&str] = &[
    "overlay",
    "bridge",
    "br_netfilter",
    "veth",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_fib",
    "nft_fib_inet",
    "nft_compat",
    "nf_conntrack",
    "xt_conntrack",
    // What CRIU asks of sockets.
    "unix_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "netlink_diag",
    "af_packet_diag",
];

/// A guest in preparation.
pub struct Machine {
    files: Vec<(PathBuf, String)>,
    memory_mib: u32,
    patience: Duration,
    systemd: bool,
}

/// How a guest ended.
#[derive(Debug)]
pub struct Outcome {
    /// The script's exit status; nothing if it did not end.
    pub status: Option<i32>,
    /// Both outputs of the script.
    pub output: String,
    /// What the kernel said.
    pub console: String,
}

/// Ends the script's output; the status follows.
const MARK: &str = "wharf-vm-exit:";

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Prepares a guest with 1 GiB of memory and two CPUs, which may run for three minutes.
    pub fn new() -> Self {
        Self { files: Vec::new(), memory_mib: 1024, patience: Duration::from_secs(180), systemd: false }
    }

    /// Puts a file of this host into the guest, executable.
    #[must_use]
    pub fn file(mut self, host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        self.files.push((host.into(), guest.into()));
        self
    }

    /// Puts a dynamically linked program of this host into the guest, with the libraries it needs, at the same paths.
    ///
    /// # Panics
    /// Where it is missing.
    #[must_use]
    pub fn program(mut self, path: &str) -> Self {
        assert!(Path::new(path).exists(), "{path} is missing: scripts/prerequisites long installs it");
        let output = Command::new("ldd").arg(path).output().expect("ldd runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain([path]) {
            if !self.files.iter().any(|(_, guest)| guest == file) {
                self.files.push((file.into(), file.to_owned()));
            }
        }
        self
    }

    /// Has systemd for the guest's first process; the script is a service of it.
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self.program(SYSTEMD)
    }

    /// Sets the memory in MiB. Files are held twice while the guest starts.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Sets how long the guest may run.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Boots the guest, runs the script, switches the guest off.
    ///
    /// # Panics
    /// Where qemu, busybox or the kernel cannot be had.
    pub fn run(&self, script: &str) -> Outcome {
        let kernel = Kernel::obtain();
        let folder = tempfile::tempdir().unwrap();
        let (initial, console) = (folder.path().join("initramfs"), folder.path().join("console"));
        self.write_initial(&kernel, &initial, script);
        let mut guest = Command::new("qemu-system-x86_64")
            .args([
                "-M",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-smp",
                "2",
                "-cpu",
                "max",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(["-display", "none", "-no-reboot", "-m", &self.memory_mib.to_string()])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initial)
            .args(["-append", "console=ttyS0 loglevel=4 panic=-1 mitigations=off nokaslr swapaccount=1 rdinit=/init"])
            .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu-system-x86_64: apt-get install qemu-system-x86");
        let mut stdout = guest.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
        });
        let deadline = Instant::now() + self.patience;
        while guest.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                guest.kill().unwrap();
                guest.wait().unwrap();
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let output = String::from_utf8_lossy(&reader.join().unwrap()).replace('\r', "");
        let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
        let (output, status) = match output.rsplit_once(MARK) {
            Some((before, after)) => (before.to_owned(), after.trim().parse().ok()),
            None => (output, None),
        };
        Outcome { status, output, console }
    }

    fn write_initial(&self, kernel: &Kernel, path: &Path, script: &str) {
        let mut archive = Archive::new(BufWriter::new(File::create(path).unwrap()));
        let mut folders = BTreeSet::new();
        let mut add_folders = |archive: &mut Archive<_>, file: &str| {
            for (at, _) in file.match_indices('/').filter(|(at, _)| *at > 0) {
                if folders.insert(file[..at].to_owned()) {
                    archive.folder(&file[..at]).unwrap();
                }
            }
        };
        for folder in ["proc/", "sys/", "dev/", "tmp/", "run/", "root/", "var/", "etc/", "sbin/", "usr/", "bin/"] {
            add_folders(&mut archive, folder);
        }
        // The kernel opens it for init before anything is mounted.
        archive.device("dev/console", (5, 1)).unwrap();
        let busybox = fs::read("/bin/busybox").expect("/bin/busybox: apt-get install busybox-static");
        archive.file("bin/busybox", &busybox).unwrap();
        archive.link("bin/sh", "busybox").unwrap();
        archive.file("init", INIT.as_bytes()).unwrap();
        archive.file("second", SECOND.as_bytes()).unwrap();
        if self.systemd {
            archive.folder("etc/systemd").unwrap();
            archive.folder("etc/systemd/system").unwrap();
            archive.file("etc/systemd/system/script.service", UNIT.as_bytes()).unwrap();
        }
        archive.file("script", script.as_bytes()).unwrap();
        archive.folder("modules").unwrap();
        for (order, module) in kernel.modules(MODULES).iter().enumerate() {
            archive.file(&format!("modules/{order:03}.ko"), &fs::read(module).unwrap()).unwrap();
        }
        for (host, guest) in &self.files {
            let guest = guest.trim_start_matches('/');
            add_folders(&mut archive, guest);
            let content = fs::read(host).unwrap_or_else(|e| panic!("{}: {e}", host.display()));
            archive.file(guest, &content).unwrap();
        }
        archive.finish().unwrap().into_inner().unwrap();
    }
}

/// Moves from the initramfs to a tmpfs.
const INIT: &str = "#!/bin/sh
b=/bin/busybox
$b mkdir /new
$b mount -t tmpfs -o mode=755,size=80% tmpfs /new
for entry in /*; do
	case $entry in /new | /init) ;; *) $b cp -a $entry /new/ ;; esac
done
exec $b switch_root /new /second
";

/// Mounts what a booted machine has and runs the script on the second serial line, so that the kernel's words are apart.
const SECOND: &str = "#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mount --make-rshared /
for module in /modules/*.ko; do insmod $module; done
ip link set lo up
hostname vm
# A serial line in raw mode neither echoes nor waits for a carrier.
stty -F /dev/ttyS1 raw -echo 115200
if [ -e /etc/systemd/system/script.service ]; then
	echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
	echo root:x:0: >/etc/group
	exec /lib/systemd/systemd --unit=script.service
fi
sh /script >/dev/ttyS1 2>&1 </dev/null
echo \"wharf-vm-exit: $?\" >/dev/ttyS1
poweroff -f
";

/// Where Debian has it.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// The script as a service.
const UNIT: &str = "[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
ExecStart=/bin/sh -c 'sh /script >/dev/ttyS1 2>&1 </dev/null; echo wharf-vm-exit: $? >/dev/ttyS1; poweroff -f'
";

/// Builds a test program of this workspace and returns where it is, to be run in a guest.
///
/// # Panics
/// When it does not build.
pub fn test_program(package: &str, test: &str) -> PathBuf {
    built(&["test", "--no-run", "-p", package, "--test", test], test)
}

/// Builds a program of this workspace, as tests are built, and returns where it is.
///
/// # Panics
/// When it does not build.
pub fn program(package: &str, name: &str) -> PathBuf {
    built(&["build", "-p", package, "--bin", name], name)
}

fn built(arguments: &[&str], target: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo {arguments:?} failed");
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut programs = messages.filter(|m| m["target"]["name"] == target && m["executable"].is_string());
    PathBuf::from(programs.next().expect("a program")["executable"].as_str().unwrap_or_default())
}

/// Tells whether the long tier runs; prints the skip if not.
pub fn wanted(test: &str) -> bool {
    let wanted = std::env::var_os("WHARF_LONG").is_some();
    if !wanted {
        println!("skipped: {test} is of the long tier (make test-long)");
    }
    wanted
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_mark_is_what_the_guest_writes() {
        assert!(super::SECOND.contains(super::MARK));
    }
}
