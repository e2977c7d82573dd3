//! Classic BPF written back to front: a jump only goes forward, so its target is always known already.

use std::io;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use wharf_sys::seccomp::Instruction;

/// A filter ready to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions in the order in which the kernel runs them.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2).
    pub flags: u32,
}

impl Program {
    /// Whether loading it gives a listener's descriptor that someone must answer on (seccomp_unotify(2)).
    pub fn notifies(&self) -> bool {
        self.flags & wharf_sys::seccomp::flags::NEW_LISTENER != 0
    }

    /// Loads the filter for the calling thread and all it becomes; see [`wharf_sys::seccomp::load`].
    pub fn load(&self) -> io::Result<()> {
        wharf_sys::seccomp::load(&self.instructions, self.flags)
    }
}

/// Offsets in `struct seccomp_data`.
pub mod offset {
    /// The system-call number.
    pub const NUMBER: u32 = 0;
    /// The audit value of the architecture.
    pub const ARCH: u32 = 4;

    /// Returns where the low half of an argument is; the machines built for are little-endian.
    pub const fn low(argument: u32) -> u32 {
        16 + 8 * argument
    }

    /// Returns where the high half of an argument is.
    pub const fn high(argument: u32) -> u32 {
        low(argument) + 4
    }
}

/// How a conditional jump compares the accumulator with its constant.
#[derive(Clone, Copy, Debug)]
pub enum Compare {
    /// Equal.
    Eq,
    /// Greater or equal, unsigned.
    Ge,
    /// Greater, unsigned.
    Gt,
}

/// A place in the program; how many instructions follow it decides what it is called while writing backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// The longest distance that a conditional jump can bridge.
const REACH: usize = u8::MAX as usize;

/// Takes instructions from the last to the first.
#[derive(Default)]
pub struct Writer {
    reversed: Vec<Instruction>,
    /// The latest return of each value, so that near ones are shared.
    returns: Vec<(u32, usize)>,
}

impl Writer {
    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Label {
        // Opcodes of classic BPF are 16 bits wide; the constants merely are declared wider.
        self.reversed.push(Instruction { code: code as u16, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    /// Returns a place that ends the filter with `value`, near enough for the next conditional jumps.
    pub fn give(&mut self, value: u32) -> Label {
        // A jump emitted soon after must still reach: leave room for a few instructions in between.
        const NEAR: usize = REACH - 32;
        if let Some(&(_, at)) = self.returns.iter().find(|(v, _)| *v == value)
            && self.distance(Label(at)) < NEAR
        {
            return Label(at);
        }
        let label = self.push(BPF_RET | BPF_K, 0, 0, value);
        self.returns.retain(|(v, _)| *v != value);
        self.returns.push((value, label.0));
        label
    }

    /// Loads the 32-bit word at `offset` of `seccomp_data`, then goes on with what was written last.
    pub fn load(&mut self, offset: u32) -> Label {
        self.push(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
    }

    /// Masks the accumulator, then goes on with what was written last.
    pub fn mask(&mut self, mask: u32) -> Label {
        self.push(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask)
    }

    /// Goes to one of two places, through unconditional jumps where they are far.
    pub fn branch(&mut self, compare: Compare, k: u32, mut yes: Label, mut no: Label) -> Label {
        while self.distance(yes).max(self.distance(no)) > REACH {
            let far = if self.distance(yes) >= self.distance(no) { yes } else { no };
            let near = self.goto(far);
            if far == yes {
                yes = near;
            }
            if far == no {
                no = near;
            }
        }
        let op = match compare {
            Compare::Eq => BPF_JEQ,
            Compare::Ge => BPF_JGE,
            Compare::Gt => BPF_JGT,
        };
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(BPF_JMP | op | BPF_K, jt, jf, k)
    }

    fn goto(&mut self, target: Label) -> Label {
        // A program has at most BPF_MAXINSNS (4,096) instructions, which `compile` checks.
        let k = self.distance(target) as u32;
        self.push(BPF_JMP | BPF_JA, 0, 0, k)
    }

    /// Makes `target` what the next instruction is followed by.
    pub fn continue_at(&mut self, target: Label) {
        if self.distance(target) > 0 {
            self.goto(target);
        }
    }

    /// Returns the instructions in running order.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
