//! The runtime as a user without privileges.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::bundle::{Bundle, add_namespace, eventually};

/// A user id that nothing else uses.
const USER: u32 = 54_321;

/// A bundle that belongs to the user, with the maps given.
fn of_user(script: &str, ids: serde_json::Value) -> Bundle {
    let mut bundle = Bundle::new(script).with(|c| {
        add_namespace(c, json!({"type": "user"}));
        c["linux"]["uidMappings"] = ids.clone();
        c["linux"]["gidMappings"] = ids;
        // Groups that are not mapped cannot own terminals; sysfs is of a network namespace of its own here.
        for mount in c["mounts"].as_array_mut().expect("list") {
            mount["options"].as_array_mut().expect("list").retain(|o| o != "gid=5");
        }
    });
    // A copy, as the user may not reach where the runtime was built.
    let copy = bundle.path().join("wharf-runtime");
    crate::bundle::copy(&bundle.runtime, &copy);
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("mode");
    bundle.runtime = copy;
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(USER), Some(USER)).expect("owner");
    let mut folders = vec![bundle.path().to_owned()];
    while let Some(folder) = folders.pop() {
        give(&folder);
        for entry in std::fs::read_dir(&folder).expect("folder").flatten() {
            match entry.file_type().expect("type").is_dir() {
                true => folders.push(entry.path()),
                false => give(&entry.path()),
            }
        }
    }
    bundle.write_config();
    bundle
}

/// Runs the runtime as the user.
fn as_user(bundle: &Bundle, words: &[&str]) -> Output {
    let mut command = Command::new(&bundle.runtime);
    let output = bundle.path().join("said");
    let file = std::fs::File::create(&output).expect("file");
    command.arg("--root").arg(bundle.path().join("state")).args(words).stdin(Stdio::null()).uid(USER).gid(USER);
    command.env("PATH", "/usr/bin:/bin").current_dir(bundle.path());
    // Into a file: a detached container would keep a pipe open.
    let status = command.stdout(file.try_clone().expect("file")).stderr(file).status().expect("ran");
    Output { status, stdout: std::fs::read(&output).expect("read"), stderr: Vec::new() }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_user_runs_a_container_with_the_own_id_only() {
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let bundle =
        of_user("id -u; cat /proc/self/setgroups; ls /dev/null /dev/pts/ptmx; echo x > /made; stat -c %u /made", own);
    let dir = bundle.path().to_str().expect("UTF-8").to_owned();
    let ran = as_user(&bundle, &["run", "--bundle", &dir, &bundle.id]);
    assert_eq!(text(&ran), "0\ndeny\n/dev/null\n/dev/pts/ptmx\n0\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(bundle.rootfs().join("made")).expect("made"));
    assert_eq!(owner, USER, "what is made inside is the user's outside");
}

#[test]
fn a_users_container_takes_further_processes_and_signals() {
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let bundle = of_user("while :; do sleep 0.1; done", own);
    let dir = bundle.path().to_str().expect("UTF-8").to_owned();
    let ran = as_user(&bundle, &["run", "--detach", "--bundle", &dir, &bundle.id]);
    assert!(ran.status.success(), "{}", text(&ran));
    let script = "for n in pid user mnt; do [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] && echo $n; done; exit 7";
    let ran = as_user(&bundle, &["exec", &bundle.id, "sh", "-c", script]);
    assert_eq!((text(&ran).as_str(), ran.status.code()), ("pid\nuser\nmnt\n", Some(7)));
    assert!(as_user(&bundle, &["kill", &bundle.id, "KILL"]).status.success());
    eventually("the end", || text(&as_user(&bundle, &["state", &bundle.id])).contains("stopped"));
    let gone = as_user(&bundle, &["delete", &bundle.id]);
    assert!(gone.status.success(), "{}", text(&gone));
    assert!(!bundle.path().join("state").join(&bundle.id).exists());
}

#[test]
fn several_ids_are_mapped_by_the_helpers_that_look_into_subuid() {
    let helpers = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"];
    let granted =
        |file: &str| std::fs::read_to_string(file).is_ok_and(|t| t.lines().any(|l| l.starts_with(&format!("{USER}:"))));
    if helpers.iter().any(|h| !Path::new(h).exists()) || !granted("/etc/subuid") || !granted("/etc/subgid") {
        // Without a grant the refusal is what can be seen.
        let ids =
            json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 600_000, "size": 100}]);
        let bundle = of_user("true", ids);
        let dir = bundle.path().to_str().expect("UTF-8").to_owned();
        let ran = as_user(&bundle, &["run", "--bundle", &dir, &bundle.id]);
        assert!(!ran.status.success() && text(&ran).contains("newgidmap"), "{}", text(&ran));
        assert!(!bundle.path().join("state").join(&bundle.id).exists());
        println!("only the refusal was tested: no newuidmap or no grant for user {USER} in /etc/subuid");
        return;
    }
    let ids =
        json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 600_000, "size": 100}]);
    let bundle = of_user("cut -c1-40 /proc/self/uid_map | tr -s ' '", ids);
    let dir = bundle.path().to_str().expect("UTF-8").to_owned();
    let ran = as_user(&bundle, &["run", "--bundle", &dir, &bundle.id]);
    assert!(text(&ran).contains("1 600000 100"), "{}", text(&ran));
}

#[test]
fn a_limit_that_a_user_may_not_set_is_an_error() {
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let mut bundle = of_user("true", own);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
    bundle.write_config();
    let dir = bundle.path().to_str().expect("UTF-8").to_owned();
    let ran = as_user(&bundle, &["run", "--bundle", &dir, &bundle.id]);
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran));
    assert!(!bundle.path().join("state").join(&bundle.id).exists());
}
