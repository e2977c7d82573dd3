use proptest::prelude::*;

use super::*;

fn rule(allow: bool, kind: Option<DeviceType>, major: i64, minor: i64, access: &str) -> DeviceRule {
    DeviceRule { allow, kind, major: Some(major), minor: Some(minor), access: Some(access.to_owned()) }
}

fn deny_all() -> DeviceRule {
    DeviceRule { allow: false, access: Some("rwm".to_owned()), ..DeviceRule::default() }
}

/// Runs the program as the kernel would, for one access.
fn run(program: &[Instruction], node: Node, major: u32, minor: u32, access: u8) -> bool {
    let kind = if node == Node::Block { 1 } else { 2 };
    let context = [u32::from(access) << 16 | kind, major, minor];
    let mut registers = [0_u32; 11];
    let mut at = 0;
    loop {
        let i = program[at];
        let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        let k = i.immediate.cast_unsigned();
        at += 1;
        match i.code {
            LDX_W => registers[to] = context[i.offset as usize / 4],
            ALU_MOV_X => registers[to] = registers[from],
            ALU_MOV_K => registers[to] = k,
            ALU_AND_K => registers[to] &= k,
            ALU_RSH_K => registers[to] >>= k,
            JNE_K if registers[to] != k => at += i.offset as usize,
            JEQ_K if registers[to] == k => at += i.offset as usize,
            JNE_K | JEQ_K => {}
            EXIT => return registers[0] == 1,
            other => panic!("operation {other:#x} is not made here"),
        }
    }
}

/// What the v1 kernel answers: `match_exception` and `match_exception_partial` of `security/device_cgroup.c`.
fn kernel(filter: &Filter, node: Node, major: u32, minor: u32, access: u8) -> bool {
    let about =
        |e: &&Exception| e.node == node && e.major.is_none_or(|n| n == major) && e.minor.is_none_or(|n| n == minor);
    let mut matching = filter.exceptions.iter().filter(about);
    if filter.allows {
        !matching.any(|e| e.access & access != 0)
    } else {
        matching.any(|e| e.access & access == access)
    }
}

#[test]
fn a_container_may_use_the_usual_devices_and_no_others() {
    let filter = Filter::new(&[deny_all()]).unwrap();
    let program = filter.program();
    let allowed = |node, major, minor, access| run(&program, node, major, minor, access);
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 17)] {
        assert!(allowed(Node::Char, major, minor, 6), "{major}:{minor}");
        assert!(!allowed(Node::Block, major, minor, 2), "{major}:{minor}");
    }
    assert!(allowed(Node::Block, 8, 0, 1), "mknod of anything");
    assert!(!allowed(Node::Block, 8, 0, 2));
    assert!(!allowed(Node::Char, 1, 11, 2), "kmsg");
    assert!(!allowed(Node::Char, 1, 1, 6), "mem");
}

#[test]
fn partial_rules_of_one_device_add_up() {
    let rules = [
        deny_all(),
        rule(true, Some(DeviceType::Char), 10, 229, "r"),
        rule(true, Some(DeviceType::Char), 10, 229, "w"),
    ];
    let program = Filter::new(&rules).unwrap().program();
    assert!(run(&program, Node::Char, 10, 229, 6));
    assert!(!run(&program, Node::Char, 10, 229, 7), "mknod as well as the rest");
}

#[test]
fn a_privileged_container_has_no_filter() {
    let all = DeviceRule { allow: true, access: Some("rwm".to_owned()), ..DeviceRule::default() };
    assert!(Filter::new(&[deny_all(), all]).unwrap().allows_all());
    assert!(Filter::new(&[]).unwrap().allows_all());
}

#[test]
fn requests_reset_first() {
    let rules = [deny_all(), rule(true, Some(DeviceType::Block), 8, -1, "rw")];
    let requests: Vec<_> = Filter::new(&rules).unwrap().requests().collect();
    assert_eq!(requests[0], ("devices.deny", "a".to_owned()));
    assert_eq!(requests[1], ("devices.allow", "b 8:* rw".to_owned()));
    assert!(requests.contains(&("devices.allow", "c *:* m".to_owned())));
    assert!(requests.contains(&("devices.allow", "c 136:* mrw".to_owned())));
}

#[test]
fn hostile_rules_are_refused() {
    for bad in [
        rule(true, Some(DeviceType::Char), -2, 0, "r"),
        rule(true, Some(DeviceType::Char), 1 << 32, 0, "r"),
        rule(true, Some(DeviceType::Char), 1, 0, "rx"),
        rule(true, Some(DeviceType::Fifo), 1, 0, "r"),
    ] {
        assert!(matches!(Filter::new(&[bad]), Err(CgroupError::Value { .. })));
    }
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let kinds = [None, Some(DeviceType::All), Some(DeviceType::Block), Some(DeviceType::Char)];
    (any::<bool>(), prop::sample::select(kinds.to_vec()), -1_i64..3, -1_i64..3, "r?w?m?")
        .prop_map(|(allow, kind, major, minor, access)| rule(allow, kind, major, minor, &access))
}

proptest! {
    #[test]
    fn the_program_answers_as_the_v1_kernel(
        rules in prop::collection::vec(any_rule(), 0..8),
        accesses in prop::collection::vec((any::<bool>(), 0_u32..4, 0_u32..4, 1_u8..8), 20),
    ) {
        let filter = Filter::new(&rules).unwrap();
        let program = filter.program();
        for (block, major, minor, access) in accesses {
            let node = if block { Node::Block } else { Node::Char };
            let answer = run(&program, node, major, minor, access);
            prop_assert_eq!(answer, kernel(&filter, node, major, minor, access));
        }
    }
}
