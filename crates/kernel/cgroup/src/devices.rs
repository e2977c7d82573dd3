//! Device rules: what a list of them comes to, as v1 requests and as a v2 program.

use wharf_oci::runtime::{DeviceRule, DeviceType};
use wharf_sys::bpf::Instruction;

use crate::CgroupError;

/// `BPF_DEVCG_ACC_*`, and v1's letters.
const ACCESSES: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];
const ALL_ACCESS: u8 = 7;

/// A kind of device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Block,
    Char,
}

/// Devices that are treated otherwise than the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    node: Node,
    /// Nothing is every number.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// What a list of rules comes to: a default and exceptions from it, as the v1 kernel keeps them (`security/device_cgroup.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    allows: bool,
    exceptions: Vec<Exception>,
}

impl Default for Filter {
    /// A fresh group under an unrestricted parent allows everything.
    fn default() -> Self {
        Self { allows: true, exceptions: Vec::new() }
    }
}

/// Devices that every container may use, as runc adds them to any list: mknod of all, then null, zero, full, random,
/// urandom, tty, console, pts and ptmx (runc `specconv.AllowedDevices`).
const ALWAYS: [(Node, Option<u32>, Option<u32>, u8); 11] = [
    (Node::Char, None, None, 1),
    (Node::Block, None, None, 1),
    (Node::Char, Some(1), Some(3), ALL_ACCESS),
    (Node::Char, Some(1), Some(8), ALL_ACCESS),
    (Node::Char, Some(1), Some(7), ALL_ACCESS),
    (Node::Char, Some(5), Some(0), ALL_ACCESS),
    (Node::Char, Some(1), Some(5), ALL_ACCESS),
    (Node::Char, Some(1), Some(9), ALL_ACCESS),
    (Node::Char, Some(5), Some(1), ALL_ACCESS),
    (Node::Char, Some(136), None, ALL_ACCESS),
    (Node::Char, Some(5), Some(2), ALL_ACCESS),
];

impl Filter {
    /// Works out what the rules come to, one after the other, with the devices that every container may use.
    ///
    /// Errors: [`CgroupError::Value`] for a negative number other than −1, an unknown access letter, a FIFO.
    pub fn new(rules: &[DeviceRule]) -> Result<Self, CgroupError> {
        let mut filter = Self::default();
        for rule in rules {
            filter.apply(rule)?;
        }
        for (node, major, minor, access) in ALWAYS {
            filter.change(Exception { node, major, minor, access }, true);
        }
        Ok(filter)
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<(), CgroupError> {
        let access = parse_access(rule.access.as_deref())?;
        let (major, minor) = (parse_number(rule.major)?, parse_number(rule.minor)?);
        let nodes: &[Node] = match rule.kind {
            None | Some(DeviceType::All) if major.is_none() && minor.is_none() && access == ALL_ACCESS => {
                *self = Self { allows: rule.allow, exceptions: Vec::new() };
                return Ok(());
            }
            None | Some(DeviceType::All) => &[Node::Block, Node::Char],
            Some(DeviceType::Block) => &[Node::Block],
            Some(DeviceType::Char | DeviceType::Unbuffered) => &[Node::Char],
            Some(DeviceType::Fifo) => return Err(CgroupError::Value { what: "device rule's type", value: "p".into() }),
        };
        for node in nodes {
            self.change(Exception { node: *node, major, minor, access }, rule.allow);
        }
        Ok(())
    }

    fn change(&mut self, change: Exception, allow: bool) {
        let same = |e: &Exception| (e.node, e.major, e.minor) == (change.node, change.major, change.minor);
        let present = self.exceptions.iter().position(same);
        match (allow == self.allows, present) {
            (true, Some(at)) => {
                self.exceptions[at].access &= !change.access;
                if self.exceptions[at].access == 0 {
                    self.exceptions.remove(at);
                }
            }
            (true, None) => {}
            (false, Some(at)) => self.exceptions[at].access |= change.access,
            (false, None) => self.exceptions.push(change),
        }
    }

    /// Tells whether nothing is restricted.
    pub fn allows_all(&self) -> bool {
        self.allows && self.exceptions.is_empty()
    }

    /// Returns the requests that make a group of v1 so, whatever it was before: file and line.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, String)> {
        let (reset, except) =
            if self.allows { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        let lines = self.exceptions.iter().map(move |e| (except, e.line()));
        std::iter::once((reset, "a".to_owned())).chain(lines)
    }

    /// Returns the program that answers as the filter says: 1 lets an access through, 0 gives EPERM.
    pub fn program(&self) -> Vec<Instruction> {
        // Registers: r1 the context, r2 the access asked for, r3 the node's type, r4 major, r5 minor, r6 scratch.
        let mut out = vec![
            load(3, 1, 0),
            load(4, 1, 4),
            load(5, 1, 8),
            alu(ALU_MOV_X, 2, 3, 0),
            alu(ALU_AND_K, 3, 0, 0xffff),
            alu(ALU_RSH_K, 2, 0, 16),
        ];
        for exception in &self.exceptions {
            out.extend(exception.code(!self.allows));
        }
        out.extend(give(self.allows));
        out
    }
}

impl Exception {
    fn line(&self) -> String {
        let node = match self.node {
            Node::Block => 'b',
            Node::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let access: String = ACCESSES.iter().filter(|(_, bit)| self.access & bit != 0).map(|(c, _)| *c).collect();
        format!("{node} {}:{} {access}", number(self.major), number(self.minor))
    }

    /// Ends with `answer` for accesses the exception is about: all of what is asked for if it allows, any part if it denies.
    fn code(&self, answer: bool) -> Vec<Instruction> {
        let mut tests = Vec::new();
        let node = match self.node {
            Node::Block => 1,
            Node::Char => 2,
        };
        tests.push(jump(JNE_K, 3, node));
        if let Some(major) = self.major {
            tests.push(jump(JNE_K, 4, major));
        }
        if let Some(minor) = self.minor {
            tests.push(jump(JNE_K, 5, minor));
        }
        if self.access != ALL_ACCESS {
            tests.push(alu(ALU_MOV_X, 6, 2, 0));
            if answer {
                tests.push(alu(ALU_AND_K, 6, 0, u32::from(ALL_ACCESS & !self.access)));
                tests.push(jump(JNE_K, 6, 0));
            } else {
                tests.push(alu(ALU_AND_K, 6, 0, u32::from(self.access)));
                tests.push(jump(JEQ_K, 6, 0));
            }
        }
        tests.extend(give(answer));
        // Every failed test goes behind the two instructions of `give`.
        let length = tests.len();
        for (at, i) in tests.iter_mut().enumerate() {
            if matches!(i.code, JNE_K | JEQ_K) {
                // An exception has at most ten instructions.
                i.offset = (length - at - 1) as i16;
            }
        }
        tests
    }
}

fn parse_access(access: Option<&str>) -> Result<u8, CgroupError> {
    let invalid = |text: &str| CgroupError::Value { what: "device access", value: text.to_owned() };
    match access {
        None | Some("") => Ok(ALL_ACCESS),
        Some(text) => text.chars().try_fold(0, |bits, c| {
            let found = ACCESSES.iter().find(|(letter, _)| *letter == c);
            found.map(|(_, bit)| bits | bit).ok_or_else(|| invalid(text))
        }),
    }
}

fn parse_number(n: Option<i64>) -> Result<Option<u32>, CgroupError> {
    match n {
        None | Some(-1) => Ok(None),
        Some(n) => {
            u32::try_from(n).map(Some).map_err(|_| CgroupError::Value { what: "device number", value: n.to_string() })
        }
    }
}

// 64-bit and 32-bit operations of eBPF (kernel Documentation/bpf/standardization/instruction-set.rst).
const LDX_W: u8 = 0x61;
const ALU_MOV_X: u8 = 0xbc;
const ALU_MOV_K: u8 = 0xb4;
const ALU_AND_K: u8 = 0x54;
const ALU_RSH_K: u8 = 0x74;
const JNE_K: u8 = 0x56;
const JEQ_K: u8 = 0x16;
const EXIT: u8 = 0x95;

const fn load(to: u8, from: u8, offset: i16) -> Instruction {
    Instruction { code: LDX_W, registers: from << 4 | to, offset, immediate: 0 }
}

const fn alu(code: u8, to: u8, from: u8, immediate: u32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset: 0, immediate: immediate.cast_signed() }
}

const fn jump(code: u8, register: u8, immediate: u32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate: immediate.cast_signed() }
}

fn give(answer: bool) -> [Instruction; 2] {
    [alu(ALU_MOV_K, 0, 0, u32::from(answer)), Instruction { code: EXIT, registers: 0, offset: 0, immediate: 0 }]
}

#[cfg(test)]
mod tests;
