//! Tokens to nodes, by recursive descent.

use std::collections::BTreeMap;

use crate::error::ParseError;
use crate::function;
use crate::lex::{Kind, Token, lex};
use crate::node::{Branch, Command, List, Node, Number, Operand, Pipe};
use crate::print::quote_go;

/// Deeper nesting than this is refused: texts come from requests (log tags), and the parser recurses.
const MAX_DEPTH: usize = 100;

/// Parses `text` into the named tree and those that it defines.
pub(crate) fn parse(name: &str, text: &str) -> Result<BTreeMap<String, List>, ParseError> {
    let mut p = Parser {
        tokens: lex(text),
        index: 0,
        line: 1,
        action_line: 0,
        vars: vec!["$".into()],
        range_depth: 0,
        depth: 0,
        name,
        trees: BTreeMap::new(),
    };
    let list = p.top()?;
    // Go keeps an earlier definition when a later one of the same name is empty.
    if !p.trees.contains_key(name) || !is_empty(&list) {
        p.trees.insert(name.to_owned(), list);
    }
    Ok(p.trees)
}

fn is_empty(list: &List) -> bool {
    list.iter().all(|n| matches!(n, Node::Text(t) if t.trim().is_empty()))
}

/// What ended a list of nodes.
enum End {
    End,
    Else,
}

struct Parser<'a> {
    tokens: Vec<Token>,
    index: usize,
    line: usize,
    action_line: usize,
    vars: Vec<String>,
    range_depth: usize,
    depth: usize,
    name: &'a str,
    trees: BTreeMap<String, List>,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
    fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError { name: self.name.to_owned(), line: self.line, message: message.into() })
    }

    fn peek(&mut self) -> Token {
        // The lexer always ends with Eof or Error, and next() never moves past it.
        let t = self.tokens[self.index].clone();
        self.line = t.line;
        t
    }

    fn next(&mut self) -> Token {
        let t = self.peek();
        if self.index + 1 < self.tokens.len() {
            self.index += 1;
        }
        t
    }

    fn skip_space(&mut self) {
        while self.tokens[self.index].kind == Kind::Space {
            self.next();
        }
    }

    fn next_non_space(&mut self) -> Token {
        self.skip_space();
        self.next()
    }

    fn peek_non_space(&mut self) -> Token {
        self.skip_space();
        self.peek()
    }

    fn backup(&mut self, to: usize) {
        self.index = to;
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parsed<T> {
        if token.kind != Kind::Error {
            return self.error(format!("unexpected {} in {context}", token.describe()));
        }
        let mut extra = String::new();
        if self.action_line != 0 && self.action_line != token.line {
            extra = format!(" in action started at {}:{}", self.name, self.action_line);
            if token.text.ends_with(" action") {
                extra = extra[" in action".len()..].to_owned();
            }
        }
        self.error(format!("{}{extra}", token.text))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Token> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn top(&mut self) -> Parsed<List> {
        let mut list = List::new();
        loop {
            let token = self.peek();
            match token.kind {
                Kind::Eof => return Ok(list),
                Kind::Left => {
                    let at = self.index;
                    self.next();
                    let word = self.next_non_space();
                    if word.kind == Kind::Keyword && word.text == "define" {
                        self.definition()?;
                        continue;
                    }
                    self.backup(at);
                }
                _ => {}
            }
            match self.text_or_action()? {
                Ok(node) => list.push(node),
                Err(End::End) => return self.error("unexpected {{end}}"),
                Err(End::Else) => return self.error("unexpected {{else}}"),
            }
        }
    }

    fn definition(&mut self) -> Parsed<()> {
        let context = "define clause";
        let name = self.template_name(context)?;
        self.expect(Kind::Right, context)?;
        let vars = std::mem::replace(&mut self.vars, vec!["$".into()]);
        let depth = std::mem::take(&mut self.range_depth);
        let (list, end) = self.item_list()?;
        if let End::Else = end {
            return self.error(format!("unexpected {{{{else}}}} in {context}"));
        }
        self.vars = vars;
        self.range_depth = depth;
        self.trees.insert(name, list);
        Ok(())
    }

    fn item_list(&mut self) -> Parsed<(List, End)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("max expression depth exceeded");
        }
        let mut list = List::new();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Ok(node) => list.push(node),
                Err(end) => {
                    self.depth -= 1;
                    return Ok((list, end));
                }
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parsed<Result<Node, End>> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Ok(Node::Text(token.text))),
            Kind::Left => {
                self.action_line = token.line;
                let node = self.action();
                if node.is_ok() {
                    self.action_line = 0;
                }
                node
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Parsed<Result<Node, End>> {
        self.skip_space();
        let at = self.index;
        let token = self.next();
        if token.kind != Kind::Keyword {
            self.backup(at);
            return Ok(Ok(Node::Action(self.pipeline("command", Kind::Right)?)));
        }
        match token.text.as_str() {
            "block" => self.block().map(Ok),
            "break" | "continue" => self.loop_control(&token.text).map(Ok),
            "else" => {
                let peek = self.peek_non_space();
                if !(peek.kind == Kind::Keyword && matches!(peek.text.as_str(), "if" | "with")) {
                    self.expect(Kind::Right, "else")?;
                }
                Ok(Err(End::Else))
            }
            "end" => {
                self.expect(Kind::Right, "end")?;
                Ok(Err(End::End))
            }
            "if" => Ok(Ok(Node::If(self.control("if")?))),
            "range" => Ok(Ok(Node::Range(self.control("range")?))),
            "with" => Ok(Ok(Node::With(self.control("with")?))),
            "template" => {
                let context = "template clause";
                let pos = self.peek_non_space().pos;
                let name = self.template_name(context)?;
                let pipe = self.optional_pipeline(context)?;
                Ok(Ok(Node::Template { pos, name, pipe }))
            }
            _ => self.unexpected(&token, "command"),
        }
    }

    fn optional_pipeline(&mut self, context: &str) -> Parsed<Option<Pipe>> {
        if self.peek_non_space().kind == Kind::Right {
            self.next();
            return Ok(None);
        }
        self.pipeline(context, Kind::Right).map(Some)
    }

    fn loop_control(&mut self, word: &str) -> Parsed<Node> {
        let token = self.next_non_space();
        if token.kind != Kind::Right {
            return self.unexpected(&token, &format!("{{{{{word}}}}}"));
        }
        if self.range_depth == 0 {
            return self.error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
        }
        Ok(if word == "break" { Node::Break } else { Node::Continue })
    }

    fn block(&mut self) -> Parsed<Node> {
        let context = "block clause";
        let pos = self.peek_non_space().pos;
        let name = self.template_name(context)?;
        let pipe = self.pipeline(context, Kind::Right)?;
        let vars = std::mem::replace(&mut self.vars, vec!["$".into()]);
        let depth = std::mem::take(&mut self.range_depth);
        let (list, end) = self.item_list()?;
        if let End::Else = end {
            return self.error(format!("unexpected {{{{else}}}} in {context}"));
        }
        self.vars = vars;
        self.range_depth = depth;
        self.trees.insert(name.clone(), list);
        Ok(Node::Template { pos, name, pipe: Some(pipe) })
    }

    fn template_name(&mut self, context: &str) -> Parsed<String> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Str | Kind::RawStr => self.unquote(&token),
            _ => self.unexpected(&token, context),
        }
    }

    fn control(&mut self, context: &str) -> Parsed<Branch> {
        let vars = self.vars.len();
        let pipe = self.pipeline(context, Kind::Right)?;
        if context == "range" {
            self.range_depth += 1;
        }
        let (list, end) = self.item_list()?;
        if context == "range" {
            self.range_depth -= 1;
        }
        let otherwise = match end {
            End::End => None,
            End::Else => Some(self.else_list(context)?),
        };
        self.vars.truncate(vars);
        Ok(Branch { pipe, list, otherwise })
    }

    fn else_list(&mut self, context: &str) -> Parsed<List> {
        let peek = self.peek();
        if peek.kind == Kind::Keyword && peek.text == context && context != "range" {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return self.error("max expression depth exceeded");
            }
            self.next();
            let branch = self.control(context)?;
            self.depth -= 1;
            return Ok(vec![if context == "if" { Node::If(branch) } else { Node::With(branch) }]);
        }
        let (list, end) = self.item_list()?;
        match end {
            End::End => Ok(list),
            End::Else => self.error("expected end; found {{else}}"),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("max expression depth exceeded");
        }
        let pos = self.peek_non_space().pos;
        let mut pipe = Pipe { pos, assign: false, declared: Vec::new(), commands: Vec::new() };
        while self.declaration(&mut pipe, context)? {}
        loop {
            self.skip_space();
            let at = self.index;
            let token = self.next();
            if token.kind == end {
                break;
            }
            match token.kind {
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawStr
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => {
                    self.backup(at);
                    pipe.commands.push(self.command()?);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        self.check_pipeline(&pipe, context)?;
        self.depth -= 1;
        Ok(pipe)
    }

    fn check_pipeline(&self, pipe: &Pipe, context: &str) -> Parsed<()> {
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        for (i, c) in pipe.commands.iter().enumerate().skip(1) {
            if let Some(
                Operand::Bool { .. }
                | Operand::Dot { .. }
                | Operand::Nil { .. }
                | Operand::Number { .. }
                | Operand::Str { .. },
            ) = c.args.first()
            {
                return self.error(format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(())
    }

    /// Reads one declared variable; returns whether another may follow.
    fn declaration(&mut self, pipe: &mut Pipe, context: &str) -> Parsed<bool> {
        let v = self.peek_non_space();
        if v.kind != Kind::Variable {
            return Ok(false);
        }
        let at = self.index;
        self.next();
        let next = self.peek_non_space();
        match next.kind {
            Kind::Assign | Kind::Declare => {
                pipe.assign = next.kind == Kind::Assign;
                self.next_non_space();
                pipe.declared.push(v.text.clone());
                self.vars.push(v.text);
                Ok(false)
            }
            Kind::Char if next.text == "," => {
                self.next_non_space();
                pipe.declared.push(v.text.clone());
                self.vars.push(v.text);
                if context == "range" && pipe.declared.len() < 2 {
                    return match self.peek_non_space().kind {
                        Kind::Variable | Kind::Right | Kind::RightParen => Ok(true),
                        _ => self.error("range can only initialize variables"),
                    };
                }
                self.error(format!("too many declarations in {context}"))
            }
            _ => {
                self.backup(at);
                Ok(false)
            }
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut args = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                args.push(operand);
            }
            let at = self.index;
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::Right | Kind::RightParen => self.backup(at),
                Kind::Pipe => {}
                _ => return self.unexpected(&token, "operand"),
            }
            break;
        }
        if args.is_empty() {
            return self.error("empty command");
        }
        Ok(Command { args })
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(node) = self.term()? else { return Ok(None) };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(node));
        }
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(self.next().text[1..].to_owned());
        }
        let pos = first.pos;
        Ok(Some(match node {
            Operand::Field { mut path, .. } => {
                path.append(&mut fields);
                Operand::Field { pos, path }
            }
            Operand::Variable { mut path, .. } => {
                path.append(&mut fields);
                Operand::Variable { pos, path }
            }
            Operand::Bool { .. }
            | Operand::Str { .. }
            | Operand::Number { .. }
            | Operand::Nil { .. }
            | Operand::Dot { .. } => {
                return self.error(format!("unexpected . after term {}", quote_go(&node.to_string())));
            }
            node => Operand::Chain { pos, node: Box::new(node), fields },
        }))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        self.skip_space();
        let at = self.index;
        let token = self.next();
        let pos = token.pos;
        Ok(Some(match token.kind {
            Kind::Identifier => {
                if !function::exists(&token.text) {
                    return self.error(format!("function {} not defined", quote_go(&token.text)));
                }
                Operand::Identifier { pos, name: token.text }
            }
            Kind::Dot => Operand::Dot { pos },
            Kind::Nil => Operand::Nil { pos },
            Kind::Variable => {
                if !self.vars.contains(&token.text) {
                    return self.error(format!("undefined variable {}", quote_go(&token.text)));
                }
                Operand::Variable { pos, path: vec![token.text] }
            }
            Kind::Field => Operand::Field { pos, path: vec![token.text[1..].to_owned()] },
            Kind::Bool => Operand::Bool { pos, value: token.text == "true" },
            Kind::CharConstant => {
                let text = self.unquote(&token)?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => {
                        Operand::Number { pos, text: token.text, value: Number::Int(i64::from(c as u32)) }
                    }
                    _ => return self.error(format!("malformed character constant: {}", token.text)),
                }
            }
            Kind::Number => match number(&token.text) {
                Some(value) => Operand::Number { pos, text: token.text, value },
                None => return self.error(format!("bad number syntax: {}", quote_go(&token.text))),
            },
            Kind::LeftParen => Operand::Pipe(Box::new(self.pipeline("parenthesized pipeline", Kind::RightParen)?)),
            Kind::Str | Kind::RawStr => {
                let text = self.unquote(&token)?;
                Operand::Str { pos, source: token.text, text }
            }
            _ => {
                self.backup(at);
                return Ok(None);
            }
        }))
    }

    fn unquote(&self, token: &Token) -> Parsed<String> {
        if token.kind == Kind::RawStr {
            return Ok(token.text[1..token.text.len() - 1].replace('\r', ""));
        }
        match unescape(&token.text[1..token.text.len() - 1]) {
            Some(text) => Ok(text),
            None => self.error("invalid syntax"),
        }
    }
}

/// Undoes Go's string escapes; bytes that make no UTF-8 become U+FFFD.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        let digits = |chars: &mut std::str::Chars<'_>, n: usize, radix: u32| -> Option<u32> {
            (0..n).try_fold(0u32, |v, _| Some(v * radix + chars.next()?.to_digit(radix)?))
        };
        match chars.next()? {
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'r' => out.push(b'\r'),
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'v' => out.push(11),
            c @ ('\\' | '"' | '\'') => out.push(c as u8),
            'x' => out.push(u8::try_from(digits(&mut chars, 2, 16)?).ok()?),
            'u' => out.extend(char::from_u32(digits(&mut chars, 4, 16)?)?.encode_utf8(&mut [0; 4]).bytes()),
            // Seven digits beyond the first cannot overflow: the value is checked by from_u32.
            'U' => {
                let high = digits(&mut chars, 4, 16)?;
                let low = digits(&mut chars, 4, 16)?;
                out.extend(char::from_u32((high << 16) | low)?.encode_utf8(&mut [0; 4]).bytes());
            }
            c @ '0'..='7' => {
                let v = c.to_digit(8)? * 64 + digits(&mut chars, 2, 8)?;
                out.push(u8::try_from(v).ok()?);
            }
            _ => return None,
        }
    }
    Some(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

fn number(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if body.starts_with(['+', '-']) {
        return None;
    }
    if let Ok(u) = u64::from_str_radix(body, radix) {
        return Some(match (negative, i64::try_from(u)) {
            (false, Ok(i)) => Number::Int(i),
            (false, Err(_)) => Number::Uint(u),
            (true, Ok(i)) => Number::Int(-i),
            (true, Err(_)) if u == 1 << 63 => Number::Int(i64::MIN),
            (true, Err(_)) => return None,
        });
    }
    if radix != 10 || !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let f: f64 = body.parse().ok().filter(|f: &f64| f.is_finite())?;
    let f = if negative { -f } else { f };
    Some(Number::Float(f))
}
