//! Runs a parsed template over a value.

use crate::error::ExecuteError;
use crate::function::{self, CallError, FunctionSet};
use crate::node::{Branch, Command, List, Node, Number, Operand, Pipe};
use crate::print::{format_value, quote_go};
use crate::value::{ANY, Nil, Value};
use crate::{MissingKey, Template};

/// Templates that call themselves deeper than this are refused.
const MAX_DEPTH: usize = 100;

/// Rounds of `range` beyond this, over the whole run, are refused: a template of a request must end, and Go lets it count
/// to any number.
const MAX_ROUNDS: usize = 1_000_000;

/// Runs `template`; output goes to `out`, also what was printed before an error.
pub(crate) fn execute(
    template: &Template,
    data: &Value,
    functions: FunctionSet,
    missing: MissingKey,
    out: &mut String,
) -> Result<(), ExecuteError> {
    let mut state = State {
        template,
        name: &template.name,
        functions,
        missing,
        out,
        vars: vec![("$".into(), data.clone())],
        at: At::None,
        depth: 0,
        rounds: 0,
    };
    // parse() always stores the tree of its own name.
    let Some(list) = template.trees.get(&template.name) else { return Ok(()) };
    match state.walk_list(data, list)? {
        Flow::On | Flow::Break | Flow::Continue => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// The node an error is reported at.
#[derive(Clone, Copy)]
enum At<'a> {
    None,
    Pipe(&'a Pipe),
    Operand(&'a Operand),
    Command(&'a Command),
    Template(usize, &'a str, Option<&'a Pipe>),
}

struct State<'a, 'o> {
    template: &'a Template,
    name: &'a str,
    functions: FunctionSet,
    missing: MissingKey,
    out: &'o mut String,
    vars: Vec<(String, Value)>,
    at: At<'a>,
    depth: usize,
    rounds: usize,
}

type Ran<T> = Result<T, ExecuteError>;

impl<'a> State<'a, '_> {
    fn error<T>(&self, message: impl Into<String>) -> Ran<T> {
        let message = message.into();
        let (pos, context) = match self.at {
            At::None => return Err(ExecuteError { location: self.name.to_owned(), message }),
            At::Pipe(p) => (p.pos, p.to_string()),
            At::Operand(o) => (o.pos(), o.to_string()),
            At::Command(c) => (c.args.first().map_or(0, Operand::pos), c.to_string()),
            At::Template(pos, name, pipe) => {
                let pipe = pipe.map(|p| format!(" {p}")).unwrap_or_default();
                (pos, format!("{{{{template {}{pipe}}}}}", quote_go(name)))
            }
        };
        let before = &self.template.text[..pos];
        let line = 1 + before.matches('\n').count();
        let column = pos - before.rfind('\n').map_or(0, |n| n + 1);
        Err(ExecuteError {
            location: format!("{}:{line}:{column}", self.template.name),
            message: format!("executing {} at <{context}>: {message}", quote_go(self.name)),
        })
    }

    fn walk_list(&mut self, dot: &Value, list: &'a List) -> Ran<Flow> {
        for node in list {
            let flow = self.walk(dot, node)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn walk(&mut self, dot: &Value, node: &'a Node) -> Ran<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.declared.is_empty() {
                    self.print(&value);
                }
            }
            Node::If(b) => return self.branch(dot, b, false),
            Node::With(b) => return self.branch(dot, b, true),
            Node::Range(b) => return self.range(dot, b),
            Node::Template { pos, name, pipe } => self.call_template(dot, *pos, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Value) {
        match value {
            Value::Nil(Nil::Interface) => self.out.push_str("<no value>"),
            Value::Str(s) => self.out.push_str(s),
            v => self.out.push_str(&format_value(v)),
        }
    }

    fn branch(&mut self, dot: &Value, b: &'a Branch, with: bool) -> Ran<Flow> {
        let mark = self.vars.len();
        let value = self.pipeline(dot, &b.pipe)?;
        let flow = if value.is_true() {
            self.walk_list(if with { &value } else { dot }, &b.list)?
        } else if let Some(list) = &b.otherwise {
            self.walk_list(dot, list)?
        } else {
            Flow::On
        };
        self.vars.truncate(mark);
        Ok(flow)
    }

    fn range(&mut self, dot: &Value, b: &'a Branch) -> Ran<Flow> {
        let mark = self.vars.len();
        let value = self.pipeline(dot, &b.pipe)?;
        let mut any = false;
        match &value {
            Value::List(l) => {
                for (i, item) in l.items.iter().enumerate() {
                    any = true;
                    let key = Value::Int(i64::try_from(i).unwrap_or(i64::MAX));
                    if self.iterate(b, mark, key, item)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(m) => {
                for (k, item) in m.entries() {
                    any = true;
                    if self.iterate(b, mark, Value::Str(k.clone()), item)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Int(n) => {
                for i in 0..*n {
                    any = true;
                    if self.iterate(b, mark, Value::Int(i), &Value::Int(i))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Nil(Nil::List | Nil::Map | Nil::Interface) => {}
            v => return self.error(format!("range can't iterate over {}", format_value(v))),
        }
        let mut flow = Flow::On;
        if !any && let Some(list) = &b.otherwise {
            flow = self.walk_list(dot, list)?;
        }
        self.vars.truncate(mark);
        Ok(flow)
    }

    fn iterate(&mut self, b: &'a Branch, mark: usize, key: Value, item: &Value) -> Ran<Flow> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return self.error(format!("exceeded maximum number of rounds ({MAX_ROUNDS})"));
        }
        let names = &b.pipe.declared;
        if b.pipe.assign {
            match names.as_slice() {
                [v] => self.assign(v, item),
                [k, v] => {
                    self.assign(k, &key);
                    self.assign(v, item);
                }
                _ => {}
            }
        } else {
            self.vars.truncate(mark);
            match names.as_slice() {
                [v] => self.vars.push((v.clone(), item.clone())),
                [k, v] => {
                    self.vars.push((k.clone(), key));
                    self.vars.push((v.clone(), item.clone()));
                }
                _ => {}
            }
        }
        let inner = self.vars.len();
        let flow = self.walk_list(item, &b.list)?;
        self.vars.truncate(inner);
        Ok(flow)
    }

    fn assign(&mut self, name: &str, value: &Value) {
        if let Some(v) = self.vars.iter_mut().rev().find(|v| v.0 == name) {
            v.1 = value.clone();
        }
    }

    fn call_template(&mut self, dot: &Value, pos: usize, name: &'a str, pipe: Option<&'a Pipe>) -> Ran<()> {
        self.at = At::Template(pos, name, pipe);
        let Some(list) = self.template.trees.get(name) else {
            return self.error(format!("template {} not defined", quote_go(name)));
        };
        if self.depth == MAX_DEPTH {
            return self.error(format!("exceeded maximum template depth ({MAX_DEPTH})"));
        }
        let data = match pipe {
            Some(p) => self.pipeline(dot, p)?,
            None => Value::Nil(Nil::Interface),
        };
        let vars = std::mem::replace(&mut self.vars, vec![("$".into(), data.clone())]);
        let outer = std::mem::replace(&mut self.name, name);
        self.depth += 1;
        self.walk_list(&data, list)?;
        self.depth -= 1;
        self.name = outer;
        self.vars = vars;
        Ok(())
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'a Pipe) -> Ran<Value> {
        self.at = At::Pipe(pipe);
        let mut value: Option<Value> = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value.take())?);
        }
        let value = value.unwrap_or(Value::Nil(Nil::Interface));
        // In a range the declared variables belong to each round.
        for name in &pipe.declared {
            if pipe.assign {
                self.assign(name, &value);
            } else {
                self.vars.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'a Command, last: Option<Value>) -> Ran<Value> {
        // The parser makes no empty command.
        let Some((first, rest)) = command.args.split_first() else { return Ok(Value::Nil(Nil::Interface)) };
        match first {
            Operand::Field { path, .. } => {
                self.at = At::Operand(first);
                self.chain(dot, dot.clone(), path, rest, last)
            }
            Operand::Chain { node, fields, .. } => {
                let start = self.operand(dot, node)?;
                self.at = At::Operand(first);
                self.chain(dot, start, fields, rest, last)
            }
            Operand::Variable { path, .. } => {
                self.at = At::Operand(first);
                let start = self.variable(&path[0]);
                if path.len() == 1 {
                    return self.no_arguments(first, rest, last.as_ref(), start);
                }
                self.chain(dot, start, &path[1..], rest, last)
            }
            Operand::Identifier { name, .. } => {
                self.at = At::Operand(first);
                self.function(dot, At::Command(command), name, rest, last)
            }
            Operand::Pipe(_) => {
                let value = self.operand(dot, first)?;
                self.no_arguments(first, rest, last.as_ref(), value)
            }
            Operand::Nil { .. } => {
                self.at = At::Operand(first);
                self.error("nil is not a command")
            }
            _ => {
                let value = self.operand(dot, first)?;
                self.no_arguments(first, rest, last.as_ref(), value)
            }
        }
    }

    fn no_arguments(&mut self, node: &'a Operand, rest: &[Operand], last: Option<&Value>, value: Value) -> Ran<Value> {
        if !rest.is_empty() || last.is_some() {
            self.at = At::Operand(node);
            return self.error(format!("can't give argument to non-function {node}"));
        }
        Ok(value)
    }

    fn variable(&self, name: &str) -> Value {
        // The parser has checked that the variable exists.
        self.vars.iter().rev().find(|v| v.0 == name).map_or(Value::Nil(Nil::Interface), |v| v.1.clone())
    }

    fn operand(&mut self, dot: &Value, node: &'a Operand) -> Ran<Value> {
        self.at = At::Operand(node);
        match node {
            Operand::Dot { .. } => Ok(dot.clone()),
            Operand::Nil { .. } => Ok(Value::Nil(Nil::Interface)),
            Operand::Bool { value, .. } => Ok(Value::Bool(*value)),
            Operand::Number { value, .. } => Ok(match value {
                Number::Int(i) => Value::Int(*i),
                Number::Uint(u) => Value::Uint(*u),
                Number::Float(f) => Value::Float(*f),
            }),
            Operand::Str { text, .. } => Ok(Value::Str(text.clone())),
            Operand::Field { path, .. } => self.chain(dot, dot.clone(), path, &[], None),
            Operand::Variable { path, .. } => {
                let start = self.variable(&path[0]);
                self.chain(dot, start, &path[1..], &[], None)
            }
            Operand::Pipe(p) => self.pipeline(dot, p),
            Operand::Chain { node: inner, fields, .. } => {
                let start = self.operand(dot, inner)?;
                self.at = At::Operand(node);
                self.chain(dot, start, fields, &[], None)
            }
            Operand::Identifier { name, .. } => self.function(dot, At::Operand(node), name, &[], None),
        }
    }

    /// Follows `.A.B.C`; only the last may have arguments.
    fn chain(
        &mut self,
        dot: &Value,
        start: Value,
        path: &'a [String],
        args: &'a [Operand],
        last: Option<Value>,
    ) -> Ran<Value> {
        let mut value = start;
        let mut boxed = false;
        for (i, name) in path.iter().enumerate() {
            let ends = i + 1 == path.len();
            let found = if ends && (!args.is_empty() || last.is_some()) {
                self.method(dot, &value, name, args, last.clone())?
            } else {
                self.field(&value, name, boxed)?
            };
            boxed = match &value {
                Value::Map(m) => m.element == ANY,
                _ => false,
            };
            value = found;
        }
        Ok(value)
    }

    fn field(&self, value: &Value, name: &str, boxed: bool) -> Ran<Value> {
        match value {
            Value::Record(r) => match r.field(name) {
                Some(v) => Ok(v),
                None => self.error(format!("can't evaluate field {name} in type {}", r.type_name())),
            },
            Value::Map(m) => match (m.get(name), self.missing) {
                (Some(v), _) => Ok(v.clone()),
                (None, MissingKey::NoValue) => Ok(Value::Nil(Nil::Interface)),
                (None, MissingKey::Error) => self.error(format!("map has no entry for key {}", quote_go(name))),
            },
            Value::Nil(Nil::Map) => match self.missing {
                MissingKey::NoValue => Ok(Value::Nil(Nil::Interface)),
                MissingKey::Error => self.error(format!("map has no entry for key {}", quote_go(name))),
            },
            Value::Nil(Nil::Interface) if boxed => self.error(format!("nil pointer evaluating {ANY}.{name}")),
            Value::Nil(Nil::Interface) => match self.missing {
                MissingKey::NoValue => Ok(Value::Nil(Nil::Interface)),
                MissingKey::Error => self.error(format!("nil data; no entry for key {}", quote_go(name))),
            },
            Value::Nil(Nil::Pointer) => self.error(format!("nil pointer evaluating {}.{name}", value.type_name())),
            v => {
                let type_name = if boxed { ANY.to_owned() } else { v.type_name() };
                self.error(format!("can't evaluate field {name} in type {type_name}"))
            }
        }
    }

    fn method(
        &mut self,
        dot: &Value,
        value: &Value,
        name: &str,
        args: &'a [Operand],
        last: Option<Value>,
    ) -> Ran<Value> {
        let at = self.at;
        let mut values = Vec::with_capacity(args.len() + 1);
        for a in args {
            values.push(self.operand(dot, a)?);
        }
        values.extend(last);
        self.at = at;
        if let Value::Record(r) = value {
            match r.call(name, &values) {
                Some(Ok(v)) => return Ok(v),
                Some(Err(e)) => return self.error(format!("error calling {name}: {e}")),
                None => {}
            }
        }
        self.field(value, name, false)?;
        match value {
            Value::Map(_) | Value::Nil(_) => self.error(format!("{name} is not a method but has arguments")),
            _ => self.error(format!("{name} has arguments but cannot be invoked as function")),
        }
    }

    fn function(
        &mut self,
        dot: &Value,
        call: At<'a>,
        name: &str,
        args: &'a [Operand],
        last: Option<Value>,
    ) -> Ran<Value> {
        if let Some(message) = function::check_count(name, args.len() + usize::from(last.is_some())) {
            return self.error(message);
        }
        if matches!(name, "and" | "or") {
            let stop = name == "or";
            let mut value = Value::Nil(Nil::Interface);
            for a in args {
                value = self.operand(dot, a)?;
                if value.is_true() == stop {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for (i, a) in args.iter().enumerate() {
            if let Some(message) = function::check_literal(name, i, a) {
                self.at = At::Operand(a);
                return self.error(message);
            }
            values.push(self.operand(dot, a)?);
        }
        values.extend(last);
        match function::call(self.functions, name, &values) {
            Ok(v) => Ok(v),
            Err(CallError::Failed(e)) => {
                self.at = call;
                let subject = if name == "call" { args.first().map(Operand::to_string) } else { None };
                self.error(match subject {
                    Some(node) => format!("error calling call: non-function {node} of type {e}"),
                    None => format!("error calling {name}: {e}"),
                })
            }
            Err(CallError::Type(e)) => self.error(e),
        }
    }
}
