//! cgroup v2 and Debian's 6.1 kernel, in a virtual machine. Long tier.

#![allow(missing_docs)]

use testkit::vm::{Machine, program, test_program, wanted};

#[test]
fn limits_bite_with_cgroup_v2() {
    if !wanted("limits_bite_with_cgroup_v2") {
        return;
    }
    let outcome = Machine::new().file(test_program("wharf-cgroup", "host"), "/bin/host").run("/bin/host");
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
    assert!(outcome.output.contains("test a_cpu_quota_throttles ... ok"), "{}", outcome.output);
}

#[test]
fn a_container_runs_with_cgroup_v2_on_kernel_6_1() {
    if !wanted("a_container_runs_with_cgroup_v2_on_kernel_6_1") {
        return;
    }
    let runtime = program("bin-wharf-runtime", "wharf-runtime");
    let outcome = Machine::new().file(runtime, "/bin/wharf-runtime").run(include_str!("machine/runtime.sh"));
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}

#[test]
fn the_runtime_conforms_with_cgroup_v2_on_kernel_6_1() {
    if !wanted("the_runtime_conforms_with_cgroup_v2_on_kernel_6_1") {
        return;
    }
    let machine = Machine::new().memory(2048).patience(std::time::Duration::from_secs(900));
    let machine = machine.file(program("bin-wharf-runtime", "wharf-runtime"), "/bin/wharf-runtime");
    let outcome = machine
        .file(test_program("testkit", "conformance"), "/bin/conformance")
        .run(include_str!("machine/conformance.sh"));
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}

#[test]
fn the_whole_engine_runs_with_cgroup_v2_on_kernel_6_1() {
    if !wanted("the_whole_engine_runs_with_cgroup_v2_on_kernel_6_1") {
        return;
    }
    let mut machine = Machine::new().memory(2048).patience(std::time::Duration::from_secs(400));
    for name in ["docker", "dockerd", "docker-init", "wharf-shim"] {
        machine = machine.file(testkit::binaries().join(name), format!("/bin/{name}"));
    }
    let outcome = machine.run(include_str!("machine/dockerd.sh"));
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}

/// A dynamically linked program's libraries, the loader among them.
fn libraries(program: &str) -> Vec<String> {
    let out = std::process::Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[test]
fn a_container_is_checkpointed_and_restored_on_kernel_6_1() {
    if !wanted("a_container_is_checkpointed_and_restored_on_kernel_6_1") {
        return;
    }
    let criu = "/usr/sbin/criu";
    assert!(std::path::Path::new(criu).exists(), "criu is missing: scripts/prerequisites long installs it");
    let mut machine = Machine::new().memory(2048).patience(std::time::Duration::from_secs(300));
    machine = machine.file(program("bin-wharf-runtime", "wharf-runtime"), "/bin/wharf-runtime");
    // CRIU keeps what is in a tmpfs by GNU tar.
    let programs = [criu, "/usr/bin/tar", "/usr/bin/gzip"];
    let files: std::collections::BTreeSet<String> =
        programs.iter().flat_map(|p| libraries(p)).chain(programs.map(str::to_owned)).collect();
    for file in files {
        machine = machine.file(&file, &file);
    }
    let outcome = machine.run(include_str!("machine/checkpoint.sh"));
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}
