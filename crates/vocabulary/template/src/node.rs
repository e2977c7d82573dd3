//! The parsed form, and how each node prints in messages.

use std::fmt;

/// Nodes in order.
pub(crate) type List = Vec<Node>;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    Range(Branch),
    With(Branch),
    Template { pos: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub pipe: Pipe,
    pub list: List,
    pub otherwise: Option<List>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    pub pos: usize,
    pub assign: bool,
    pub declared: Vec<String>,
    pub commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub args: Vec<Operand>,
}

#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Identifier { pos: usize, name: String },
    Dot { pos: usize },
    Nil { pos: usize },
    Variable { pos: usize, path: Vec<String> },
    Field { pos: usize, path: Vec<String> },
    Bool { pos: usize, value: bool },
    Number { pos: usize, text: String, value: Number },
    Str { pos: usize, source: String, text: String },
    Pipe(Box<Pipe>),
    Chain { pos: usize, node: Box<Operand>, fields: Vec<String> },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Int(i64),
    Uint(u64),
    Float(f64),
}

impl Operand {
    pub fn pos(&self) -> usize {
        match self {
            Operand::Identifier { pos, .. }
            | Operand::Dot { pos }
            | Operand::Nil { pos }
            | Operand::Variable { pos, .. }
            | Operand::Field { pos, .. }
            | Operand::Bool { pos, .. }
            | Operand::Number { pos, .. }
            | Operand::Str { pos, .. }
            | Operand::Chain { pos, .. } => *pos,
            Operand::Pipe(p) => p.pos,
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Identifier { name, .. } => f.write_str(name),
            Operand::Dot { .. } => f.write_str("."),
            Operand::Nil { .. } => f.write_str("nil"),
            Operand::Variable { path, .. } => f.write_str(&path.join(".")),
            Operand::Field { path, .. } => path.iter().try_for_each(|p| write!(f, ".{p}")),
            Operand::Bool { value, .. } => write!(f, "{value}"),
            Operand::Number { text, .. } => f.write_str(text),
            Operand::Str { source, .. } => f.write_str(source),
            Operand::Pipe(p) => write!(f, "({p})"),
            Operand::Chain { node, fields, .. } => {
                write!(f, "{node}")?;
                fields.iter().try_for_each(|p| write!(f, ".{p}"))
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, a) in self.args.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{a}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.declared.is_empty() {
            write!(f, "{} {} ", self.declared.join(", "), if self.assign { "=" } else { ":=" })?;
        }
        for (i, c) in self.commands.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}
