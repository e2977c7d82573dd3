//! Variables in the values of `--change`, as BuildKit's `shell.Lex` replaces them: `$name`, `${name}`, `${name:-word}`,
//! `${name:+word}`, `${name:?word}` and the three without a colon; not in single quotes, not after a backslash.

use crate::ImageError;

/// Replaces variables in a text and keeps quotes and backslashes, which are taken away later.
pub(crate) fn variables(text: &str, env: &[String]) -> Result<String, ImageError> {
    let mut lexer = Lexer { rest: text, env, depth: 0 };
    lexer.run(None)
}

/// Substitutions within substitutions at most.
const DEPTH: usize = 32;

struct Lexer<'t> {
    rest: &'t str,
    env: &'t [String],
    depth: usize,
}

fn wrong(text: impl Into<String>) -> ImageError {
    ImageError::Change(text.into())
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Reads up to the end, or up to an unquoted `end`.
    fn run(&mut self, end: Option<char>) -> Result<String, ImageError> {
        let mut text = String::new();
        let mut double = false;
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end && !double => return Ok(text),
                '\'' if !double => {
                    text.push(c);
                    self.single(&mut text)?;
                }
                '"' => {
                    double = !double;
                    text.push(c);
                }
                '\\' => {
                    // A quoted dollar is only a dollar; every other pair is left to who removes the quotes.
                    text.push(c);
                    text.extend(self.next());
                }
                '$' => text.push_str(&quoted(&self.variable()?, double)),
                c => text.push(c),
            }
        }
        match end {
            None if double => Err(wrong("unexpected end of statement while looking for matching double-quote")),
            None => Ok(text),
            Some(_) => Err(wrong("syntax error: missing '}'")),
        }
    }

    fn single(&mut self, text: &mut String) -> Result<(), ImageError> {
        while let Some(c) = self.next() {
            text.push(c);
            if c == '\'' {
                return Ok(());
            }
        }
        Err(wrong("unexpected end of statement while looking for matching single-quote"))
    }

    fn variable(&mut self) -> Result<String, ImageError> {
        if self.peek() != Some('{') {
            let name = self.name();
            // A dollar before what is no name stands for itself.
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name).unwrap_or_default() });
        }
        self.next();
        let name = self.name();
        if name.is_empty() {
            return Err(wrong("bad substitution"));
        }
        let colon = self.peek() == Some(':');
        if colon {
            self.next();
        }
        let modifier = self.next().ok_or_else(|| wrong("syntax error: missing '}'"))?;
        if modifier == '}' && !colon {
            return Ok(self.value(&name).unwrap_or_default());
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(wrong("bad substitution"));
        }
        let word = self.run(Some('}'))?;
        self.depth -= 1;
        let value = self.value(&name).filter(|value| !colon || !value.is_empty());
        match (modifier, value) {
            ('-', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('?', Some(value)) => Ok(value),
            ('?', None) if word.is_empty() => Err(wrong(format!("{name}: is not allowed to be unset"))),
            ('?', None) => Err(wrong(format!("{name}: {word}"))),
            (modifier, _) => Err(wrong(format!("unsupported modifier ({modifier}) in substitution"))),
        }
    }

    /// A name of letters, digits and underscores, or one digit.
    fn name(&mut self) -> String {
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let end = match self.peek() {
            Some(c) if first(c) => {
                self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len())
            }
            Some(c) if c.is_ascii_digit() => 1,
            _ => 0,
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    fn value(&self, name: &str) -> Option<String> {
        self.env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    }
}

/// What a variable holds is text: its quotes, backslashes and blanks must survive the removal of quotes.
fn quoted(value: &str, double: bool) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        let special = if double { matches!(c, '"' | '\\' | '$') } else { matches!(c, '"' | '\'' | '\\') };
        if special || !double && c.is_whitespace() {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_buildkit_does() {
        let env: Vec<String> = ["A=b", "E=", "Q=a \"q\""].map(str::to_owned).into();
        for (text, expected) in [
            ("$A/z", "b/z"),
            ("${A:-q}${N:-q}", "bq"),
            ("${E:-q}${E-q}", "q"),
            ("${A:+x}${N:+x}${E+y}", "xy"),
            ("'$A' \\$A", "'$A' \\$A"),
            ("\"$A\"", "\"b\""),
            ("$N:/x", ":/x"),
            ("$ $", "$ $"),
            ("$Q", "a\\ \\\"q\\\""),
            ("${N:-${A}c}", "bc"),
        ] {
            assert_eq!(variables(text, &env).expect(text), expected, "{text}");
        }
        for text in ["${", "${A", "${A:", "${N:?}", "${N?gone}", "${A#b}", "\"$A", "'", "${}"] {
            assert!(variables(text, &env).is_err(), "{text}");
        }
    }
}
