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

/// A guest with the runtime that tests drive, which can be weakened, and the conformance suite.
fn conformance() -> Machine {
    let machine = Machine::new().memory(3072).patience(std::time::Duration::from_secs(1500));
    let machine = machine.file(testkit::binaries().join("wharf-runtime"), "/bin/wharf-runtime");
    machine.file(test_program("testkit", "conformance"), "/bin/conformance")
}

#[test]
fn the_runtime_conforms_with_cgroup_v2_on_kernel_6_1() {
    if !wanted("the_runtime_conforms_with_cgroup_v2_on_kernel_6_1") {
        return;
    }
    let outcome = conformance().run(include_str!("machine/conformance.sh"));
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}

#[test]
fn the_runtime_conforms_with_systemd_on_kernel_6_1() {
    if !wanted("the_runtime_conforms_with_systemd_on_kernel_6_1") {
        return;
    }
    let script = ["export WHARF_SYSTEMD=1\n", include_str!("machine/conformance.sh")].concat();
    let outcome = conformance().systemd().run(&script);
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}

#[test]
fn apparmor_confines_a_container_on_kernel_6_1() {
    if !wanted("apparmor_confines_a_container_on_kernel_6_1") {
        return;
    }
    let machine = Machine::new().program("/usr/sbin/apparmor_parser");
    let machine = machine.file(testkit::binaries().join("wharf-runtime"), "/bin/wharf-runtime");
    let outcome = machine.run(&[include_str!("machine/bundle.sh"), include_str!("machine/apparmor.sh")].concat());
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}

#[test]
fn a_user_without_privileges_runs_containers_on_kernel_6_1() {
    if !wanted("a_user_without_privileges_runs_containers_on_kernel_6_1") {
        return;
    }
    let machine = Machine::new().program("/usr/bin/newuidmap").program("/usr/bin/newgidmap");
    let machine = machine.program("/usr/bin/setpriv");
    let machine = machine.file(testkit::binaries().join("wharf-runtime"), "/bin/wharf-runtime");
    let outcome =
        machine.run(&include_str!("machine/rootless.sh").replace("@BUNDLE@", include_str!("machine/bundle.sh")));
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

#[test]
fn a_container_is_checkpointed_and_restored_on_kernel_6_1() {
    if !wanted("a_container_is_checkpointed_and_restored_on_kernel_6_1") {
        return;
    }
    let machine = Machine::new().memory(2048).patience(std::time::Duration::from_secs(300));
    let machine = machine.file(program("bin-wharf-runtime", "wharf-runtime"), "/bin/wharf-runtime");
    // CRIU keeps what is in a tmpfs by GNU tar.
    let machine = machine.program("/usr/sbin/criu").program("/usr/bin/tar").program("/usr/bin/gzip");
    let outcome = machine.run(include_str!("machine/checkpoint.sh"));
    assert_eq!(outcome.status, Some(0), "{}\n{}", outcome.output, outcome.console);
}
