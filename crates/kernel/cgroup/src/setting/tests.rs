use wharf_oci::runtime::{HugepageLimit, Pids, WeightDevice};

use super::*;

fn lines(plan: Vec<Setting>) -> Vec<String> {
    plan.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
}

fn memory(memory: Memory) -> LinuxResources {
    LinuxResources { memory: Some(memory), ..LinuxResources::default() }
}

fn cpu(cpu: Cpu) -> LinuxResources {
    LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }
}

#[test]
fn no_limits_are_no_writes() {
    let zeros = LinuxResources {
        memory: Some(Memory { limit: Some(0), swap: Some(0), reservation: Some(0), ..Memory::default() }),
        cpu: Some(Cpu {
            shares: Some(0),
            quota: Some(0),
            period: Some(0),
            cpus: Some(String::new()),
            ..Cpu::default()
        }),
        pids: Some(Pids { limit: Some(0) }),
        ..LinuxResources::default()
    };
    for resources in [LinuxResources::default(), zeros] {
        assert_eq!(plan_v1(&resources).unwrap(), []);
        assert_eq!(plan_v2(&resources).unwrap(), []);
    }
}

#[test]
fn swap_counts_memory_in_v1_and_not_in_v2() {
    let both = memory(Memory { limit: Some(64), swap: Some(100), ..Memory::default() });
    assert_eq!(lines(plan_v1(&both).unwrap()), ["memory.limit_in_bytes=64", "memory.memsw.limit_in_bytes=100"]);
    assert_eq!(lines(plan_v2(&both).unwrap()), ["memory.swap.max=36", "memory.max=64"]);
    for wrong in
        [Memory { limit: Some(-2), ..Memory::default() }, Memory { reservation: Some(-5), ..Memory::default() }]
    {
        assert!(plan_v2(&memory(wrong)).is_err());
    }
    let unlimited = memory(Memory { limit: Some(-1), ..Memory::default() });
    assert_eq!(lines(plan_v2(&unlimited).unwrap()), ["memory.swap.max=max", "memory.max=max"]);
}

#[test]
fn swap_that_makes_no_sense_is_refused_in_v2() {
    for (limit, swap) in [(None, 100), (Some(200), 100), (Some(-1), 100), (Some(i64::MAX), i64::MIN)] {
        let resources = memory(Memory { limit, swap: Some(swap), ..Memory::default() });
        assert!(matches!(plan_v2(&resources), Err(CgroupError::Value { .. })), "{limit:?} {swap}");
    }
}

#[test]
fn shares_become_weights() {
    for (shares, weight) in [(1, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
        let plan = plan_v2(&cpu(Cpu { shares: Some(shares), ..Cpu::default() })).unwrap();
        assert_eq!(lines(plan), [format!("cpu.weight={weight}")]);
    }
}

#[test]
fn a_quota_without_period_has_the_kernels_period() {
    let quota = |quota, period| lines(plan_v2(&cpu(Cpu { quota, period, ..Cpu::default() })).unwrap());
    assert_eq!(quota(Some(50_000), None), ["cpu.max=50000 100000"]);
    assert_eq!(quota(None, Some(20_000)), ["cpu.max=max 20000"]);
    assert_eq!(quota(Some(-1), None), ["cpu.max=max 100000"]);
}

#[test]
fn block_limits_name_their_devices() {
    let throttle = |rate| vec![ThrottleDevice { major: 8, minor: 16, rate }];
    let resources = LinuxResources {
        block_io: Some(BlockIo {
            weight: Some(500),
            weight_device: vec![WeightDevice { major: 8, minor: 0, weight: Some(10), leaf_weight: None }],
            throttle_read_bps_device: throttle(1024),
            throttle_write_iops_device: throttle(7),
            ..BlockIo::default()
        }),
        ..LinuxResources::default()
    };
    assert_eq!(
        lines(plan_v1(&resources).unwrap()),
        [
            "blkio.weight=500",
            "blkio.weight_device=8:0 10",
            "blkio.throttle.read_bps_device=8:16 1024",
            "blkio.throttle.write_iops_device=8:16 7",
        ]
    );
    let v2 = plan_v2(&resources).unwrap();
    assert_eq!(v2[0].absent, Absent::Instead("io.weight".into(), "4950".into()));
    assert_eq!(
        lines(v2),
        ["io.bfq.weight=500", "io.bfq.weight=8:0 10", "io.max=8:16 rbps=1024", "io.max=8:16 wiops=7"]
    );
}

#[test]
fn swappiness_above_100_is_refused() {
    let swappy = |n| plan_v1(&memory(Memory { swappiness: Some(n), ..Memory::default() }));
    assert_eq!(lines(swappy(100).unwrap()), ["memory.swappiness=100"]);
    assert!(matches!(swappy(101), Err(CgroupError::Value { .. })));
}

#[test]
fn raw_files_stay_in_the_groups_folder() {
    for name in ["../memory.max", "a/b", "", ".", "..", "cgroup.procs", "cgroup.kill", "x\0y"] {
        let mut resources = LinuxResources::default();
        resources.unified.insert(name.to_owned(), "1".to_owned());
        assert!(matches!(plan_v2(&resources), Err(CgroupError::Value { .. })), "{name:?}");
    }
    let page = HugepageLimit { page_size: "../../x".into(), limit: 1 };
    let resources = LinuxResources { hugepage_limits: vec![page], ..LinuxResources::default() };
    assert!(plan_v1(&resources).is_err() && plan_v2(&resources).is_err());
}

#[test]
fn raw_files_need_v2() {
    let mut resources = LinuxResources::default();
    resources.unified.insert("memory.high".to_owned(), "1".to_owned());
    assert!(matches!(plan_v1(&resources), Err(CgroupError::Value { .. })));
    assert_eq!(plan_v2(&resources).unwrap()[0].controller, "memory");
}
