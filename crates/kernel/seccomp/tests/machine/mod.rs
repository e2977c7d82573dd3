//! A classic BPF interpreter that takes what the kernel takes from a seccomp filter, and nothing else.

use wharf_seccomp::Program;
use wharf_sys::seccomp::Instruction;

/// What the kernel shows to a filter.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            _ => panic!("the kernel refuses a load at {offset}"),
        }
    }
}

/// Runs a filter; panics where the kernel would not have loaded it.
pub fn run(program: &Program, call: Call) -> u32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program.instructions[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return k,
            other => panic!("opcode {other:#x} is not made here"),
        }
    }
}

/// Walks every instruction as the kernel's checker does.
pub fn check(program: &Program) {
    let all = &program.instructions;
    assert!(!all.is_empty() && all.len() <= 4096);
    for (at, i) in all.iter().enumerate() {
        let reach = match i.code {
            0x05 => i.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(i.jt.max(i.jf)),
            _ => 0,
        };
        assert!(at + reach + 1 < all.len() || i.code == 0x06, "instruction {at} leaves the program");
    }
    assert_eq!(all.last().unwrap().code, 0x06);
}
