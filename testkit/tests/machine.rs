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
