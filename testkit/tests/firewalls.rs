//! firewalld and ufw as Debian ships them, really installed and reloaded: in a mount namespace with an overlay over the
//! host's files, and a network namespace of its own, so that nothing of it touches the host. Long tier; needs Debian's mirror.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use testkit::vm::wanted;
use testkit::{busybox_tar, eventually};

/// Installs packages, then waits for the test to end.
const INSTALL: &str = r#"set -e
mount -t tmpfs -o size=1500m tmpfs "$1"
mkdir "$1/u" "$1/w" "$1/m"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/u",workdir="$1/w" "$1/m"
cd "$1/m"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
mkdir -p run/lock run/dbus
cat /etc/resolv.conf >etc/resolv.conf 2>/dev/null || true
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d; chmod 755 usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive chroot . apt-get -qq -y --no-install-recommends install $2 >"$1/log" 2>&1 </dev/null
mkdir -p before; pivot_root . before; umount -l /before
echo ready
read line
"#;

/// A machine: the host's files with packages more, and a network of its own with another machine behind the link `near`.
struct Machine {
    /// Where its files are mounted.
    _folder: tempfile::TempDir,
    /// The cgroup of its containers.
    group: String,
    holder: Child,
    network: Child,
    remote: Child,
}

static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Machine {
    fn start(packages: &str) -> Machine {
        let folder = tempfile::Builder::new().prefix("wkfw").tempdir().expect("a folder");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", INSTALL, "install"])
            .arg(folder.path())
            .arg(packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let output = holder.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("read");
        assert_eq!(line, "ready\n", "{packages} cannot be installed: see apt-get's output with the mirror at hand");
        let sleeper = || Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().expect("unshare runs");
        let (network, remote) = (sleeper(), sleeper());
        let own = std::fs::read_link("/proc/self/ns/net").expect("read");
        for child in [&network, &remote] {
            let path = format!("/proc/{}/ns/net", child.id());
            eventually("a network namespace", || std::fs::read_link(&path).ok().filter(|l| *l != own));
        }
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let group = format!("/wkfw{}x{number}", std::process::id());
        let machine = Machine { _folder: folder, group, holder, network, remote };
        machine.ok(&format!(
            "ip link set lo up; ip link add near type veth peer name far netns {}; ip addr add 198.51.100.1/24 dev near; \
             ip link set near up",
            machine.remote.id()
        ));
        let far = "ip link set lo up; ip addr add 198.51.100.2/24 dev far; ip link set far up";
        let script = format!("{far}; ip route add default via 198.51.100.1");
        let id = machine.remote.id().to_string();
        assert!(
            Command::new("nsenter").args(["-t", &id, "-n", "sh", "-ec", &script]).status().expect("runs").success()
        );
        machine
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .arg(format!("--net=/proc/{}/ns/net", self.network.id()))
            .args(["sh", "-c", script]);
        command
    }

    /// Runs a script in the machine; its output with errors.
    fn run(&self, script: &str) -> (bool, String) {
        let out = self.command(&format!("exec 2>&1; {script}")).stdin(Stdio::null()).output().expect("nsenter runs");
        (out.status.success(), String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    fn ok(&self, script: &str) -> String {
        let (done, said) = self.run(script);
        assert!(done, "{script}\n{said}");
        said
    }

    /// Starts our engine with the base image.
    fn engine(&self) {
        let dockerd = testkit::binaries().join("dockerd");
        self.ok(&format!(
            "mkdir -p /tmp/e && echo '{{}}' >/tmp/e/daemon.json && ({} --data-root /tmp/e/d --exec-root /tmp/e/r \
             --pidfile /tmp/e/pid --config-file /tmp/e/daemon.json --host unix:///tmp/e/s --bridge wkfw0 \
             --firewall-table wkfw0 --cgroup-parent {} --bridge-create >/tmp/e/log 2>&1 </dev/null &)",
            dockerd.display(),
            self.group
        ));
        eventually("dockerd answers", || self.docker("version").0.then_some(()));
        let tar = tempfile::tempdir().expect("a folder");
        let image = std::fs::read(busybox_tar(tar.path())).expect("packed");
        let load =
            format!("{} -H unix:///tmp/e/s import - busybox:latest", testkit::binaries().join("docker").display());
        let mut child = self.command(&load).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("runs");
        child.stdin.take().expect("piped").write_all(&image).expect("written");
        assert!(child.wait().expect("ends").success());
    }

    fn docker(&self, line: &str) -> (bool, String) {
        let docker = testkit::binaries().join("docker");
        self.run(&format!("{} -H unix:///tmp/e/s {line}", docker.display()))
    }

    fn docker_ok(&self, line: &str) -> String {
        let (done, said) = self.docker(line);
        assert!(done, "{line}\n{said}\n{}", self.run("cat /tmp/e/log").1);
        said
    }

    fn ask_from_afar(&self, url: &str) -> String {
        let id = self.remote.id().to_string();
        let out = Command::new("nsenter").args(["-t", &id, "-n", "curl", "-sS", "--max-time", "2", url]).output();
        String::from_utf8_lossy(&out.expect("runs").stdout).trim().to_owned()
    }

    /// Two networks with a web server each, one port published and one not.
    fn stack(&self) {
        for (name, subnet) in [("fw-one", "10.245.1.0/24"), ("fw-two", "10.245.2.0/24")] {
            self.docker_ok(&format!("network create --subnet {subnet} {name}"));
        }
        let serve = "'mkdir /www; echo web >/www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www'";
        self.docker_ok(&format!(
            "run -d --name fw-web --network fw-one --ip 10.245.1.10 -p 8080:80 -p 127.0.0.1:8081:80 busybox sh -c {serve}"
        ));
        self.docker_ok("run -d --name fw-else --network fw-two busybox sleep 1000");
        eventually("it serves", || self.docker("exec fw-web nc -w 1 127.0.0.1 81").0.then_some(()));
    }

    /// What must hold whatever another firewall did.
    fn check(&self, when: &str) {
        let get = |url: &str| self.ask_from_afar(url);
        eventually(&format!("{when}: a published port from another machine"), || {
            (get("http://198.51.100.1:8080/") == "web").then_some(())
        });
        assert!(self.docker("exec fw-web ping -c 1 -W 2 198.51.100.2").0, "{when}: the way out");
        // CVE-2025-54388: a port on loopback only; CVE-2025-54410: isolation.
        assert_eq!(get("http://198.51.100.1:8081/"), "", "{when}: a loopback port from another machine");
        let id = self.remote.id().to_string();
        let route = ["-t", &id, "-n", "ip", "route", "replace", "10.245.0.0/16", "via", "198.51.100.1"];
        assert!(Command::new("nsenter").args(route).status().expect("runs").success());
        assert_eq!(get("http://10.245.1.10:81/"), "", "{when}: an unpublished port by the container's address");
        assert!(!self.docker("exec fw-else nc -w 1 10.245.1.10 81").0, "{when}: another network");
        assert!(self.docker("exec fw-web nc -w 1 10.245.1.10 81").0, "{when}: its own network");
        assert_eq!(self.ok("curl -sS --max-time 2 http://127.0.0.1:8081/"), "web", "{when}: loopback at home");
    }

    fn end(&self) {
        self.docker_ok("rm -f fw-web fw-else");
        self.docker_ok("network rm fw-one fw-two");
        self.ok("kill $(cat /tmp/e/pid)");
        eventually("dockerd ends", || (!self.run("test -e /tmp/e/pid").0).then_some(()));
        assert_eq!(self.ok("nft list tables | grep -c wkfw0 || true"), "0");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What runs in the machine, and what our engine there started, should the test have failed.
        let place = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let (machine, group) = (place(self.holder.id()), format!("{}/", self.group));
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let grouped = std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(&group));
            let inside = machine.is_some() && place(pid) == machine;
            if (grouped || inside)
                && let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed())
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        drop(self.holder.stdin.take());
        for child in [&mut self.network, &mut self.remote, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn containers_live_with_firewalld_before_and_after_its_reload_and_its_restart() {
    if !wanted("containers_live_with_firewalld") {
        return;
    }
    let machine = Machine::start("firewalld dbus");
    let start = "(firewalld --nofork --nopid >/tmp/firewalld.log 2>&1 </dev/null & echo $! >/tmp/firewalld.pid)";
    machine.ok("dbus-daemon --system --fork");
    machine.ok(start);
    let running = || eventually("firewalld runs", || machine.run("firewall-cmd --state").0.then_some(()));
    running();
    // Containers' networks are not of the zone where the world is, which lets nothing through to others.
    machine.ok("firewall-cmd --zone=block --change-interface=near && firewall-cmd --set-default-zone=drop");
    machine.engine();
    machine.stack();
    let zoned = |when: &str| {
        eventually(&format!("{when}: the bridges are in the zone docker"), || {
            let (_, all) = machine.run("firewall-cmd --zone=docker --list-interfaces");
            (all.contains("wkfw0") && all.split(' ').filter(|l| l.starts_with("br-")).count() == 2).then_some(())
        });
    };
    zoned("at first");
    machine.check("at first");
    let shown = machine.docker_ok("info -f '{{.FirewallBackend.Driver}}'");
    assert_eq!(shown, "nftables+firewalld");
    assert!(machine.docker_ok("network inspect fw-one").contains("nftables+firewalld"));
    for reload in ["firewall-cmd --reload", "firewall-cmd --complete-reload"] {
        machine.ok(reload);
        running();
        zoned(reload);
        machine.check(reload);
        assert!(machine.docker_ok("info").contains("ReloadedAt"));
    }
    // It goes and comes back: its runtime configuration was lost.
    machine.ok("kill $(cat /tmp/firewalld.pid)");
    eventually("firewalld has gone", || (!machine.run("firewall-cmd --state").0).then_some(()));
    machine.check("without it");
    machine.ok(start);
    running();
    zoned("after its restart");
    machine.check("after its restart");
    machine.end();
    let (_, left) = machine.run("firewall-cmd --zone=docker --list-interfaces");
    assert_eq!(left, "", "a clean stop takes the bridges out of the zone");
}

#[test]
fn containers_live_with_ufw_before_and_after_its_reload() {
    if !wanted("containers_live_with_ufw") {
        return;
    }
    let machine = Machine::start("ufw");
    machine.ok("sed -i 's/^IPV6=.*/IPV6=yes/' /etc/default/ufw; ufw default deny incoming; ufw default deny routed; ufw --force enable");
    machine.engine();
    machine.stack();
    let policy = machine.ok("iptables -S FORWARD | head -n 1");
    assert_eq!(policy, "-P FORWARD DROP", "ufw drops what nobody accepts");
    machine.check("at first");
    for change in ["ufw reload", "ufw deny 9999/tcp", "ufw --force disable && ufw --force enable"] {
        machine.ok(change);
        machine.check(change);
    }
    machine.end();
}
