//! A data root as a stopped Docker engine leaves it, made by hand: with images in Docker's own store or in containerd's, a
//! volume, a network and two containers. The files have the form of those that dockerd 28.5 wrote.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Where the engine keeps images and layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `image/overlay2` and `overlay2`.
    Overlay2,
    /// containerd's, below the data root.
    Containerd,
}

/// The id of the container that has run.
pub const FIRST: &str = "1111111111111111111111111111111111111111111111111111111111111111";
/// The id of the container that was created only.
pub const SECOND: &str = "2222222222222222222222222222222222222222222222222222222222222222";
/// The first one's volume that nobody named.
pub const ANONYMOUS: &str = "3333333333333333333333333333333333333333333333333333333333333333";

/// A bucket's content.
enum Node {
    Value(Vec<u8>),
    Bucket(BTreeMap<Vec<u8>, Node>),
}

const PAGE: usize = 4096;

/// A bbolt file that is being written.
struct Pages {
    bytes: Vec<u8>,
}

impl Pages {
    fn add(&mut self, flags: u16, count: usize, body: &[u8]) -> u64 {
        let id = (self.bytes.len() / PAGE) as u64;
        let pages = (16 + body.len()).div_ceil(PAGE);
        self.bytes.extend(id.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend((count as u16).to_le_bytes());
        self.bytes.extend((pages as u32 - 1).to_le_bytes());
        self.bytes.extend(body);
        self.bytes.resize((id as usize + pages) * PAGE, 0);
        id
    }

    /// Writes a bucket's pages: leaves of three keys, and a branch above them where there are several.
    fn bucket(&mut self, nodes: &BTreeMap<Vec<u8>, Node>) -> u64 {
        let items: Vec<(Vec<u8>, u32, Vec<u8>)> = nodes
            .iter()
            .map(|(key, node)| match node {
                Node::Value(value) => (key.clone(), 0, value.clone()),
                Node::Bucket(inner) => {
                    let root = self.bucket(inner);
                    (key.clone(), 1, [root.to_le_bytes(), [0; 8]].concat())
                }
            })
            .collect();
        let leaves: Vec<(Vec<u8>, u64)> = items.chunks(3).map(|chunk| (chunk[0].0.clone(), self.leaf(chunk))).collect();
        match leaves.as_slice() {
            [] => self.add(2, 0, &[]),
            [(_, only)] => *only,
            several => {
                let mut elements = Vec::new();
                let mut keys: Vec<u8> = Vec::new();
                for (i, (key, page)) in several.iter().enumerate() {
                    let position = 16 * (several.len() - i) + keys.len();
                    elements.extend((position as u32).to_le_bytes());
                    elements.extend((key.len() as u32).to_le_bytes());
                    elements.extend(page.to_le_bytes());
                    keys.extend(key);
                }
                elements.extend(keys);
                self.add(1, several.len(), &elements)
            }
        }
    }

    fn leaf(&mut self, items: &[(Vec<u8>, u32, Vec<u8>)]) -> u64 {
        let (mut elements, mut data): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for (i, (key, flags, value)) in items.iter().enumerate() {
            let position = 16 * (items.len() - i) + data.len();
            for number in [*flags, position as u32, key.len() as u32, value.len() as u32] {
                elements.extend(number.to_le_bytes());
            }
            data.extend(key);
            data.extend(value);
        }
        elements.extend(data);
        self.add(2, items.len(), &elements)
    }
}

/// Writes a bbolt file with values at paths of keys.
fn bolt(path: &Path, values: &[(&[&str], Vec<u8>)]) {
    let mut top = BTreeMap::new();
    for (keys, value) in values {
        let (last, above) = keys.split_last().expect("a path");
        let mut at = &mut top;
        for key in above {
            let node = at.entry(key.as_bytes().to_vec()).or_insert_with(|| Node::Bucket(BTreeMap::new()));
            let Node::Bucket(inner) = node else { panic!("{key} is a value") };
            at = inner;
        }
        at.insert(last.as_bytes().to_vec(), Node::Value(value.clone()));
    }
    // Two copies of the meta page and the list of free pages stand in front.
    let mut pages = Pages { bytes: vec![0; 3 * PAGE] };
    let root = pages.bucket(&top);
    let end = (pages.bytes.len() / PAGE) as u64;
    for copy in 0..2u64 {
        let mut meta = Vec::new();
        meta.extend(copy.to_le_bytes());
        meta.extend(4u16.to_le_bytes());
        meta.extend([0; 6]);
        for number in [0xED0C_DAED_u32, 2, PAGE as u32, 0] {
            meta.extend(number.to_le_bytes());
        }
        for number in [root, 0, 2, end, copy] {
            meta.extend(number.to_le_bytes());
        }
        let at = copy as usize * PAGE;
        pages.bytes[at..at + meta.len()].copy_from_slice(&meta);
    }
    put(path, &pages.bytes);
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

fn put_json(path: &Path, value: &Value) {
    put(path, value.to_string().as_bytes());
}

fn hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([&0; 2]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for i in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Splits an archive into what is not the content of files and the names of those, as tar-split does.
fn split(tar: &[u8]) -> Vec<u8> {
    let (mut lines, mut position) = (String::new(), 0);
    let mut line = |value: Value| {
        lines.push_str(&value.to_string());
        lines.push('\n');
    };
    let (mut at, mut pending) = (0, Vec::new());
    while at + 512 <= tar.len() {
        let header = &tar[at..at + 512];
        pending.extend(header);
        at += 512;
        if header.iter().all(|byte| *byte == 0) {
            continue;
        }
        let field = |from: usize, to: usize| {
            let text = header[from..to].split(|b| *b == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).trim().to_owned()
        };
        let size = if header[156] == b'0' { usize::from_str_radix(&field(124, 136), 8).expect("octal") } else { 0 };
        line(json!({"type": 2, "payload": base64(&pending), "position": position}));
        let sum = (size > 0).then(|| base64(&[0; 8]));
        line(json!({"type": 1, "name": field(0, 100), "size": size, "payload": sum, "position": position + 1}));
        position += 2;
        pending.clear();
        at += size;
        let padding = size.wrapping_neg() % 512;
        pending.extend(&tar[at..at + padding]);
        at += padding;
    }
    line(json!({"type": 2, "payload": base64(&pending), "position": position}));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(lines.as_bytes()).and_then(|()| packed.finish()).expect("packed")
}

/// A layer's files and its archive.
fn layer(folder: &Path, busybox: &Path) -> Vec<u8> {
    for name in ["bin", "etc", "d", "tmp"] {
        fs::create_dir_all(folder.join(name)).expect("made");
    }
    fs::copy(busybox, folder.join("bin/sh")).expect("busybox");
    fs::set_permissions(folder.join("bin/sh"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("written");
    fs::write(folder.join("d/below"), "below\n").expect("written");
    fs::write(folder.join("gone"), "gone\n").expect("written");
    let list = "./\n./bin/\n./bin/sh\n./d/\n./d/below\n./etc/\n./etc/passwd\n./gone\n./tmp/\n";
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).args(["--format=ustar", "--no-recursion", "--numeric-owner", "-cf", "-", "-T", "-"]);
    tar.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = tar.spawn().expect("tar");
    child.stdin.take().expect("piped").write_all(list.as_bytes()).expect("listed");
    let done = child.wait_with_output().expect("tar");
    assert!(done.status.success(), "tar of a layer");
    done.stdout
}

/// Writes a data root below `root`.
///
/// # Panics
/// When a step fails.
pub fn data_root(root: &Path, store: Store, busybox: &Path) {
    put(&root.join("engine-id"), b"00000000-0000-0000-0000-000000000000");
    let made = root.join("made");
    let tar = layer(&made, busybox);
    let diff = format!("sha256:{}", hex(&tar));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin", "A=b"], "Cmd": ["sh"], "Volumes": {"/vol": {}}},
        "rootfs": {"type": "layers", "diff_ids": [diff]}, "history": [{"created_by": "test"}],
    })
    .to_string();
    let (image, upper) = match store {
        Store::Overlay2 => overlay2(root, &made, &tar, &config),
        Store::Containerd => containerd(root, &tar, &config),
    };
    fs::remove_dir_all(&made).or_else(|e| if made.exists() { Err(e) } else { Ok(()) }).expect("removed");
    write_upper(&upper);
    volumes(root);
    network(root);
    let driver = if store == Store::Overlay2 { "overlay2" } else { "overlayfs" };
    containers(root, &image, driver);
}

fn overlay2(root: &Path, made: &Path, tar: &[u8], config: &str) -> (String, std::path::PathBuf) {
    let store = root.join("image/overlay2");
    let (id, chain) = (hex(config.as_bytes()), hex(tar));
    let image = format!("sha256:{id}");
    let repositories =
        json!({"Repositories": {"own": {"own:1": image}, "reg.example/own": {"reg.example/own:2": image}}});
    put_json(&store.join("repositories.json"), &repositories);
    put(&store.join("imagedb/content/sha256").join(&id), config.as_bytes());
    let place = store.join("layerdb/sha256").join(&chain);
    put(&place.join("diff"), format!("sha256:{chain}").as_bytes());
    put(&place.join("cache-id"), b"cache1");
    put(&place.join("size"), b"1");
    put(&place.join("tar-split.json.gz"), &split(tar));
    fs::create_dir_all(root.join("overlay2/cache1")).expect("made");
    fs::rename(made, root.join("overlay2/cache1/diff")).expect("placed");
    for (container, mount) in [(FIRST, "mount1"), (SECOND, "mount2")] {
        put(&store.join("layerdb/mounts").join(container).join("mount-id"), mount.as_bytes());
        fs::create_dir_all(root.join("overlay2").join(mount).join("diff")).expect("made");
    }
    (image, root.join("overlay2/mount1/diff"))
}

fn containerd(root: &Path, tar: &[u8], config: &str) -> (String, std::path::PathBuf) {
    let daemon = root.join("containerd/daemon");
    let blob = |bytes: &[u8]| {
        let digest = hex(bytes);
        put(&daemon.join("io.containerd.content.v1.content/blobs/sha256").join(&digest), bytes);
        format!("sha256:{digest}")
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob(tar), "size": tar.len()}],
    })
    .to_string();
    let target = blob(manifest.as_bytes());
    let mut records: Vec<(Vec<&str>, Vec<u8>)> = Vec::new();
    for name in ["docker.io/library/own:1", "reg.example/own:2"] {
        let media = "application/vnd.oci.image.manifest.v1+json";
        records.push((vec!["v1", "moby", "images", name, "target", "digest"], target.clone().into_bytes()));
        records.push((vec!["v1", "moby", "images", name, "target", "mediatype"], media.as_bytes().to_vec()));
        records.push((vec!["v1", "moby", "images", name, "createdat"], vec![1; 15]));
    }
    let records: Vec<_> = records.iter().map(|(keys, value)| (keys.as_slice(), value.clone())).collect();
    bolt(&daemon.join("io.containerd.metadata.v1.bolt/meta.db"), &records);
    let place = daemon.join("io.containerd.snapshotter.v1.overlayfs");
    let (first, second) = (format!("moby/7/{FIRST}"), format!("moby/9/{SECOND}"));
    // 300 and 5, as Go's uvarint.
    let ids: [(&[&str], Vec<u8>); 2] =
        [(&["v1", "snapshots", &first, "id"], vec![0xac, 2]), (&["v1", "snapshots", &second, "id"], vec![5])];
    bolt(&place.join("metadata.db"), &ids);
    fs::create_dir_all(place.join("snapshots/5/fs")).expect("made");
    fs::create_dir_all(place.join("snapshots/300/fs")).expect("made");
    (target, place.join("snapshots/300/fs"))
}

/// What the first container has written: a new file, one that is gone, a folder that hides the one below.
fn write_upper(upper: &Path) {
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
    fs::write(upper.join("new"), "new\n").expect("written");
    fs::set_permissions(upper.join("new"), fs::Permissions::from_mode(0o4755)).expect("mode");
    mknodat(CWD, upper.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).expect("a whiteout");
    fs::create_dir(upper.join("d")).expect("made");
    fs::write(upper.join("d/above"), "above\n").expect("written");
    setxattr(upper.join("d"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).expect("opaque");
}

fn volumes(root: &Path) {
    let folder = root.join("volumes");
    put(&folder.join("named/_data/f"), b"of the volume\n");
    put(&folder.join(ANONYMOUS).join("_data/g"), b"of nobody\n");
    fs::create_dir_all(folder.join("mem/_data")).expect("made");
    let options = json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7"});
    let record = |name: &str, labels: Value, options: Value| {
        json!({"Name": name, "Driver": "local", "Labels": labels, "Options": options}).to_string().into_bytes()
    };
    let records: [(&[&str], Vec<u8>); 3] = [
        (&["volumes", "named"], record("named", json!({"a": "b"}), Value::Null)),
        (&["volumes", "mem"], record("mem", Value::Null, options)),
        (&["volumes", ANONYMOUS], record(ANONYMOUS, json!({"com.docker.volume.anonymous": ""}), Value::Null)),
    ];
    bolt(&folder.join("metadata.db"), &records);
}

fn network(root: &Path) {
    let mut records = Vec::new();
    for (id, name, driver, pool) in
        [("a1", "bridge", "bridge", ""), ("a2", "host", "host", ""), ("a3", "net1", "bridge", "10.231.77.0/24")]
    {
        let ranges = json!([{"PreferredPool": pool, "SubPool": "", "Gateway": if pool.is_empty() { "" } else { "10.231.77.9" }, "AuxAddresses": null}]);
        let record = json!({
            "name": name, "id": id, "networkType": driver, "enableIPv4": true, "enableIPv6": false, "internal": false,
            "attachable": false, "configOnly": false, "configFrom": "", "inDelete": false, "scope": "local",
            "labels": {"n": "1"}, "ipamType": "default", "ipamOptions": {}, "ipamV4Config": ranges.to_string(),
            "generic": {"com.docker.network.enable_ipv4": true, "com.docker.network.generic": {"com.docker.network.bridge.enable_icc": "false"}},
        });
        // In front stands the store's own count.
        let value = [&[9, 0, 0, 0, 0, 0, 0, 0], record.to_string().as_bytes()].concat();
        records.push((format!("docker/network/v1.0/network/{id}/"), value));
    }
    let records: Vec<_> = records.iter().map(|(key, value)| (["libnetwork", key.as_str()], value.clone())).collect();
    let records: Vec<(&[&str], Vec<u8>)> =
        records.iter().map(|(keys, value)| (keys.as_slice(), value.clone())).collect();
    bolt(&root.join("network/files/local-kv.db"), &records);
}

fn containers(root: &Path, image: &str, driver: &str) {
    let volume = |name: &str, target: &str| json!({"Destination": target, "RW": true, "Name": name, "Driver": "local", "Type": "volume"});
    let container = |id: &str, name: &str, more: Value, host: &Value| {
        let mut record = json!({
            "ID": id, "Name": format!("/{name}"), "Created": "2026-01-02T03:04:05.6Z", "Managed": false, "Image": image, "Driver": driver,
            "Config": {"Hostname": &id[..12], "Env": ["X=y", "PATH=/bin", "A=b"], "Cmd": ["sh", "-c", "cat /d/above"], "Image": "own:1",
                       "Volumes": {"/vol": {}}, "Labels": {"l": "m"}},
            "State": {"Running": false, "ExitCode": 0, "StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"},
        });
        let object = record.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        let folder = root.join("containers").join(id);
        put_json(&folder.join("config.v2.json"), &record);
        put_json(&folder.join("hostconfig.json"), host);
    };
    let more = json!({
        "State": {"Running": false, "ExitCode": 137, "StartedAt": "2026-01-02T03:04:06Z", "FinishedAt": "2026-01-02T03:04:07Z"},
        "HasBeenStartedBefore": true, "HasBeenManuallyStopped": true,
        "MountPoints": {"/data": volume("named", "/data"), "/vol": volume(ANONYMOUS, "/vol")},
        "NetworkSettings": {"Networks": {"net1": {"IPAMConfig": {"IPv4Address": "10.231.77.77"}, "Aliases": ["al"], "NetworkID": "a3"}}},
    });
    let host = json!({"Binds": ["named:/data"], "NetworkMode": "net1", "Memory": 67_108_864, "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
                      "LogConfig": {"Type": "json-file", "Config": {}}});
    container(FIRST, "first", more, &host);
    let line = json!({"log": "said before\n", "stream": "stdout", "time": "2026-01-02T03:04:06.5Z"});
    put(&root.join("containers").join(FIRST).join(format!("{FIRST}-json.log")), format!("{line}\n").as_bytes());
    let host = json!({"NetworkMode": "default", "RestartPolicy": {"Name": "no"}, "LogConfig": {"Type": "json-file", "Config": {}},
                      "Tmpfs": {"/t": "size=1m"}});
    let more = json!({"MountPoints": {}, "NetworkSettings": {"Networks": {"bridge": {}}}});
    container(SECOND, "second", more, &host);
}
