//! Text to tokens. An error is the last token, so that the parser reports it where it reads it.

use crate::print::quote_go;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    Eof,
    Text,
    Left,
    Right,
    Space,
    Declare,
    Assign,
    Pipe,
    LeftParen,
    RightParen,
    Char,
    Str,
    RawStr,
    CharConstant,
    Number,
    Bool,
    Variable,
    Field,
    Identifier,
    Dot,
    Nil,
    Keyword,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub kind: Kind,
    pub pos: usize,
    pub line: usize,
    pub text: String,
}

impl Token {
    /// How the token appears in messages.
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::Eof => "EOF".into(),
            Kind::Error => self.text.clone(),
            Kind::Keyword | Kind::Dot | Kind::Nil => format!("<{}>", self.text),
            _ if self.text.chars().count() > 10 => {
                format!("{}...", quote_go(&self.text.chars().take(10).collect::<String>()))
            }
            _ => quote_go(&self.text),
        }
    }
}

const KEYWORDS: &[&str] = &["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    line: usize,
    start: usize,
    start_line: usize,
    depth: usize,
    tokens: Vec<Token>,
}

/// Splits a template into tokens; the last one is `Eof` or `Error`.
pub(crate) fn lex(text: &str) -> Vec<Token> {
    let mut l = Lexer { text, pos: 0, line: 1, start: 0, start_line: 1, depth: 0, tokens: Vec::new() };
    if let Err(message) = l.run() {
        let (pos, line) = (l.start, l.start_line);
        l.tokens.push(Token { kind: Kind::Error, pos, line, text: message });
    }
    l.tokens
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.text[self.pos..self.pos + bytes].matches('\n').count();
        self.pos += bytes;
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.advance(c.len_utf8());
        Some(c)
    }

    fn ignore(&mut self) {
        self.start = self.pos;
        self.start_line = self.line;
    }

    fn emit(&mut self, kind: Kind) {
        let text = self.text[self.start..self.pos].to_owned();
        self.tokens.push(Token { kind, pos: self.start, line: self.start_line, text });
        self.ignore();
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            let Some(at) = self.rest().find("{{") else {
                self.advance(self.rest().len());
                if self.pos > self.start {
                    self.emit(Kind::Text);
                }
                self.emit(Kind::Eof);
                return Ok(());
            };
            let trims = has_left_trim(&self.rest()[at + 2..]);
            let body = &self.rest()[..at];
            let kept = if trims { body.trim_end_matches(is_space).len() } else { at };
            self.advance(kept);
            if self.pos > self.start {
                self.emit(Kind::Text);
            }
            self.advance(at - kept);
            self.ignore();
            self.left_delimiter(trims)?;
        }
    }

    fn left_delimiter(&mut self, trims: bool) -> Result<(), String> {
        let skip = if trims { 2 } else { 0 };
        if self.rest()[2 + skip..].starts_with("/*") {
            self.advance(2 + skip);
            self.ignore();
            return self.comment();
        }
        self.advance(2);
        self.emit(Kind::Left);
        self.advance(skip);
        self.ignore();
        self.depth = 0;
        self.inside()
    }

    fn comment(&mut self) -> Result<(), String> {
        let Some(end) = self.rest().find("*/") else { return Err("unclosed comment".into()) };
        self.advance(end + 2);
        let (found, trims) = self.at_right();
        if !found {
            return Err("comment ends before closing delimiter".into());
        }
        self.advance(if trims { 4 } else { 2 });
        if trims {
            self.skip_space();
        }
        self.ignore();
        Ok(())
    }

    fn skip_space(&mut self) {
        let n = self.rest().len() - self.rest().trim_start_matches(is_space).len();
        self.advance(n);
    }

    /// Whether a right delimiter follows, and whether it trims.
    fn at_right(&self) -> (bool, bool) {
        let mut bytes = self.rest().bytes();
        if bytes.next().is_some_and(|b| is_space(char::from(b))) && self.rest()[1..].starts_with("-}}") {
            return (true, true);
        }
        (self.rest().starts_with("}}"), false)
    }

    fn inside(&mut self) -> Result<(), String> {
        loop {
            let (found, trims) = self.at_right();
            if found {
                if self.depth > 0 {
                    return Err("unclosed left paren".into());
                }
                if trims {
                    self.advance(2);
                    self.ignore();
                }
                self.advance(2);
                self.emit(Kind::Right);
                if trims {
                    self.skip_space();
                    self.ignore();
                }
                return Ok(());
            }
            self.action_token()?;
        }
    }

    fn action_token(&mut self) -> Result<(), String> {
        let Some(c) = self.bump() else { return Err("unclosed action".into()) };
        match c {
            c if is_space(c) => {
                while self.peek().is_some_and(is_space) && !self.at_right().0 {
                    self.bump();
                }
                self.emit(Kind::Space);
            }
            '=' => self.emit(Kind::Assign),
            ':' => {
                if self.bump() != Some('=') {
                    return Err("expected :=".into());
                }
                self.emit(Kind::Declare);
            }
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', Kind::Str, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant")?,
            '`' => {
                let Some(end) = self.rest().find('`') else { return Err("unterminated raw quoted string".into()) };
                self.advance(end + 1);
                self.emit(Kind::RawStr);
            }
            '$' => self.word(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                if self.at_terminator() {
                    self.emit(Kind::Dot);
                } else {
                    self.word(Kind::Field)?;
                }
            }
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            '(' => {
                self.depth += 1;
                self.emit(Kind::LeftParen);
            }
            ')' => {
                self.depth = self.depth.checked_sub(1).ok_or("unexpected right paren")?;
                self.emit(Kind::RightParen);
            }
            c if is_alphanumeric(c) => self.word(Kind::Identifier)?,
            c if c.is_ascii_graphic() => self.emit(Kind::Char),
            c => return Err(format!("unrecognized character in action: {}", unicode(c))),
        }
        Ok(())
    }

    fn quoted(&mut self, end: char, kind: Kind, unterminated: &str) -> Result<(), String> {
        loop {
            match self.bump() {
                Some('\\') if self.peek().is_some_and(|c| c != '\n') => {
                    self.bump();
                }
                None | Some('\n') | Some('\\') => return Err(unterminated.into()),
                Some(c) if c == end => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn at_terminator(&self) -> bool {
        match self.peek() {
            None => true,
            Some(c) => is_space(c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '(') || self.rest().starts_with("}}"),
        }
    }

    fn word(&mut self, kind: Kind) -> Result<(), String> {
        while self.peek().is_some_and(is_alphanumeric) {
            self.bump();
        }
        if !self.at_terminator() {
            return Err(format!("bad character {}", unicode(self.peek().unwrap_or('\0'))));
        }
        let kind = match (kind, &self.text[self.start..self.pos]) {
            (Kind::Identifier, "true" | "false") => Kind::Bool,
            (Kind::Identifier, "nil") => Kind::Nil,
            (Kind::Identifier, w) if KEYWORDS.contains(&w) => Kind::Keyword,
            _ => kind,
        };
        self.emit(kind);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let mut last = '\0';
        while let Some(c) = self.peek() {
            let signed_exponent = matches!(c, '+' | '-') && matches!(last, 'e' | 'E' | 'p' | 'P');
            if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || signed_exponent) {
                break;
            }
            last = c;
            self.bump();
        }
        if self.peek().is_some_and(is_alphanumeric) {
            let end = self.pos + self.peek().map_or(0, char::len_utf8);
            return Err(format!("bad number syntax: {}", quote_go(&self.text[self.start..end])));
        }
        self.emit(Kind::Number);
        Ok(())
    }
}

fn has_left_trim(after: &str) -> bool {
    let mut chars = after.chars();
    chars.next() == Some('-') && chars.next().is_some_and(is_space)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Go's `%#U`.
fn unicode(c: char) -> String {
    if c.is_control() { format!("U+{:04X}", c as u32) } else { format!("U+{:04X} '{c}'", c as u32) }
}
