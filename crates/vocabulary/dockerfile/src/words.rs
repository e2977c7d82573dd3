//! Words, quotes and the expansion of variables with every modifier.

use std::collections::BTreeSet;

/// Why a word cannot be expanded. Docker's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it, and they are Docker's.
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    Quote(&'static str),
    #[error("syntax error: missing '}}'")]
    Brace,
    #[error("syntax error: bad substitution")]
    Substitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("expansion nests too deeply")]
    Depth,
}

/// Splits at blanks outside of quotes; quotes and escapes stay in the words.
pub fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut open = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if open {
                words.push(std::mem::take(&mut word));
            }
            open = false;
            continue;
        }
        open = true;
        word.push(c);
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(q) if c == q => quote = None,
            // Within single quotes an escape means itself.
            Some('\'') => {}
            _ if c == escape => word.extend(chars.next()),
            _ => {}
        }
    }
    if open {
        words.push(word);
    }
    words
}

/// What became of a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The words it falls into where blanks stood outside of quotes.
    pub words: Vec<String>,
    /// Variables that were asked for and are not set, without those that have a default.
    pub unset: BTreeSet<String>,
    /// Variables that were asked for and are set.
    pub used: BTreeSet<String>,
}

/// Expands words against variables.
pub struct Expander<'a> {
    /// The escape character.
    pub escape: char,
    /// Looks a variable up.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Leaves quotes in the text.
    pub raw_quotes: bool,
    /// Leaves escapes in the text.
    pub raw_escapes: bool,
    /// Leaves a variable that is not set as it is written.
    pub skip_unset: bool,
}

impl<'a> Expander<'a> {
    /// One that removes quotes and escapes.
    pub fn new(escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { escape, lookup, raw_quotes: false, raw_escapes: false, skip_unset: false }
    }

    /// Expands a text.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn expand(&self, text: &str) -> Result<Expanded, ExpandError> {
        let mut state = State { of: self, chars: text.chars().collect(), at: 0, depth: 0, out: Expanded::default() };
        let (text, words) = state.until(None, self.raw_escapes)?;
        state.out.text = text;
        state.out.words = words;
        Ok(state.out)
    }
}

/// Substitutions within substitutions.
const DEPTH: usize = 64;

struct State<'e, 'a> {
    of: &'e Expander<'a>,
    chars: Vec<char>,
    at: usize,
    depth: usize,
    out: Expanded,
}

/// Words as they grow.
#[derive(Default)]
struct Growing {
    words: Vec<String>,
    word: String,
    open: bool,
}

impl Growing {
    fn plain(&mut self, c: char) {
        if c.is_whitespace() {
            self.close();
        } else {
            self.word.push(c);
            self.open = true;
        }
    }

    fn raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.open = true;
    }

    fn close(&mut self) {
        if self.open && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
        self.word.clear();
        self.open = false;
    }
}

impl State<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), ExpandError> {
        let mut text = String::new();
        let mut words = Growing::default();
        while let Some(c) = self.next() {
            if Some(c) == stop {
                words.close();
                return Ok((text, words.words));
            }
            match c {
                '\'' => {
                    let piece = self.single()?;
                    words.raw(&piece);
                    text.push_str(&piece);
                }
                '"' => {
                    let piece = self.double()?;
                    words.raw(&piece);
                    text.push_str(&piece);
                }
                '$' => {
                    let piece = self.dollar()?;
                    // What a variable holds is split like what is written.
                    piece.chars().for_each(|c| words.plain(c));
                    text.push_str(&piece);
                }
                c if c == self.of.escape => {
                    if raw_escapes {
                        text.push(c);
                        words.raw(&c.to_string());
                    }
                    let Some(c) = self.next() else { break };
                    text.push(c);
                    words.raw(&c.to_string());
                }
                c => {
                    text.push(c);
                    words.plain(c);
                }
            }
        }
        if stop.is_some() {
            return Err(ExpandError::Brace);
        }
        words.close();
        Ok((text, words.words))
    }

    fn single(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        if self.of.raw_quotes {
            text.push('\'');
        }
        loop {
            match self.next().ok_or(ExpandError::Quote("single"))? {
                '\'' => break,
                c => text.push(c),
            }
        }
        if self.of.raw_quotes {
            text.push('\'');
        }
        Ok(text)
    }

    fn double(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        if self.of.raw_quotes {
            text.push('"');
        }
        loop {
            match self.next().ok_or(ExpandError::Quote("double"))? {
                '"' => break,
                '$' => {
                    let piece = self.dollar()?;
                    text.push_str(&piece);
                }
                c if c == self.of.escape => {
                    let escaped = self.peek().ok_or(ExpandError::Quote("double"))?;
                    let special = escaped == '"' || escaped == '$' || escaped == self.of.escape;
                    if self.of.raw_escapes || !special {
                        text.push(c);
                    }
                    self.at += 1;
                    text.push(escaped);
                }
                c => text.push(c),
            }
        }
        if self.of.raw_quotes {
            text.push('"');
        }
        Ok(text)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.at += 1;
                }
                return name;
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.at += 1;
                return c.to_string();
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.of.lookup)(name);
        match value {
            Some(_) => drop(self.out.used.insert(name.to_owned())),
            None => drop(self.out.unset.insert(name.to_owned())),
        }
        value
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.of.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err(ExpandError::Brace),
            Some('{' | '}' | ':') => return Err(ExpandError::Substitution),
            _ => {}
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(ExpandError::Depth);
        }
        let name = self.name();
        let result = self.modified(&name);
        self.depth -= 1;
        result
    }

    fn modified(&mut self, name: &str) -> Result<String, ExpandError> {
        let modifier = self.next().ok_or(ExpandError::Brace)?;
        match modifier {
            '}' => Ok(match self.value(name) {
                None if self.of.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            ':' => {
                let next = self.next().ok_or(ExpandError::Brace)?;
                if !matches!(next, '+' | '-' | '?') {
                    return Err(ExpandError::Modifier(format!(":{next}")));
                }
                self.conditional(name, next, true)
            }
            '+' | '-' | '?' => self.conditional(name, modifier, false),
            '#' | '%' => {
                let greedy = self.peek() == Some(modifier);
                if greedy {
                    self.at += 1;
                }
                let (pattern, _) = self.until(Some('}'), true)?;
                let Some(value) = self.value(name) else { return Ok(String::new()) };
                let pattern = Pattern::parse(&pattern, self.of.escape);
                Ok(if modifier == '#' { pattern.trim_start(&value, greedy) } else { pattern.trim_end(&value, greedy) })
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.at += 1;
                }
                let (pattern, _) = self.until(Some('/'), true)?;
                let (replacement, _) = self.until(Some('}'), false)?;
                let Some(value) = self.value(name) else { return Ok(String::new()) };
                Ok(Pattern::parse(&pattern, self.of.escape).replace(&value, &replacement, all))
            }
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    fn conditional(&mut self, name: &str, modifier: char, null_is_unset: bool) -> Result<String, ExpandError> {
        let (word, _) = self.until(Some('}'), self.of.raw_escapes)?;
        // Asking with a condition is no use of an undefined variable.
        let value = (self.of.lookup)(name);
        if value.is_some() {
            self.out.used.insert(name.to_owned());
        }
        let set = value.as_ref().is_some_and(|v| !null_is_unset || !v.is_empty());
        match modifier {
            '+' => Ok(if set { word } else { String::new() }),
            '-' => Ok(if set { value.unwrap_or_default() } else { word }),
            _ if set => Ok(value.unwrap_or_default()),
            _ => {
                let default = if null_is_unset { "is not allowed to be empty" } else { "is not allowed to be unset" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }
}

/// A shell pattern: `*`, `?`, escapes.
struct Pattern(Vec<Piece>);

#[derive(PartialEq)]
enum Piece {
    Char(char),
    One,
    Any,
}

impl Pattern {
    fn parse(text: &str, escape: char) -> Self {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' => {
                    if pieces.last() != Some(&Piece::Any) {
                        pieces.push(Piece::Any);
                    }
                }
                '?' => pieces.push(Piece::One),
                c if c == escape || c == '\\' => pieces.extend(chars.next().map(Piece::Char)),
                c => pieces.push(Piece::Char(c)),
            }
        }
        Self(pieces)
    }

    /// The ends of all prefixes of `text` that match, by a run over the set of states, so hostile patterns cost
    /// pattern times text at most.
    fn ends(&self, text: &[char]) -> Vec<usize> {
        let n = self.0.len();
        let mut states = vec![false; n + 1];
        states[0] = true;
        let mut found = Vec::new();
        for at in 0..=text.len() {
            for i in 0..n {
                if states[i] && self.0[i] == Piece::Any {
                    states[i + 1] = true;
                }
            }
            if states[n] {
                found.push(at);
            }
            let Some(c) = text.get(at) else { break };
            let mut next = vec![false; n + 1];
            for i in 0..n {
                match &self.0[i] {
                    Piece::Any => next[i] |= states[i],
                    Piece::One => next[i + 1] |= states[i],
                    Piece::Char(p) => next[i + 1] |= states[i] && p == c,
                }
            }
            states = next;
            if !states.contains(&true) {
                break;
            }
        }
        found
    }

    fn trim_start(&self, value: &str, greedy: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let ends = self.ends(&chars);
        let end = if greedy { ends.last() } else { ends.first() };
        chars[end.copied().unwrap_or(0)..].iter().collect()
    }

    fn trim_end(&self, value: &str, greedy: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let matches = |from: &usize| self.ends(&chars[*from..]).last() == Some(&(chars.len() - from));
        let mut starts = 0..=chars.len();
        let start = if greedy { starts.find(matches) } else { starts.rev().find(matches) };
        chars[..start.unwrap_or(chars.len())].iter().collect()
    }

    fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at <= chars.len() {
            match self.ends(&chars[at..]).last().copied().filter(|n| *n > 0) {
                Some(n) => {
                    out.push_str(replacement);
                    at += n;
                    if !all {
                        break;
                    }
                }
                None => {
                    out.extend(chars.get(at));
                    at += 1;
                }
            }
        }
        out.extend(chars.get(at..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "a" => Some("hello".to_owned()),
            "empty" => Some(String::new()),
            "path" => Some("/usr/local/bin".to_owned()),
            "two" => Some("x y".to_owned()),
            _ => None,
        };
        Expander::new('\\', &lookup).expand(text).map(|e| e.text).map_err(|e| e.to_string())
    }

    #[test]
    fn every_modifier_does_what_the_reference_says() {
        for (text, expected) in [
            ("$a", "hello"),
            ("${a}x", "hellox"),
            ("$ax", ""),
            ("\\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a \\\"q\\x\"", "hello \"q\\x"),
            ("${nope:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${a:+y}", "y"),
            ("${nope:+y}", ""),
            ("${nope:-${a}}", "hello"),
            ("${path#/usr}", "/local/bin"),
            ("${path#*/}", "usr/local/bin"),
            ("${path##*/}", "bin"),
            ("${path%/*}", "/usr/local"),
            ("${path%%/*}", ""),
            ("${a/l/L}", "heLlo"),
            ("${a//l/L}", "heLLo"),
            ("${path//\\//-}", "-usr-local-bin"),
            ("a$", "a$"),
            ("$1", ""),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_have_dockers_texts() {
        for (text, expected) in [
            ("${nope:?}", "nope: is not allowed to be empty"),
            ("${nope?gone}", "nope: gone"),
            ("${a", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${a!b}", "unsupported modifier (!) in substitution"),
            ("'x", "unexpected end of statement while looking for matching single-quote"),
        ] {
            assert_eq!(expand(text).expect_err(text), expected);
        }
    }

    #[test]
    fn words_split_outside_of_quotes_only() {
        let lookup = |_: &str| Some("x y".to_owned());
        let out = Expander::new('\\', &lookup).expand("a $v \"$v\" b\\ c").expect("expands");
        assert_eq!(out.words, ["a", "x", "y", "x y", "b c"]);
        assert_eq!(split_words("a \"b c\" d\\ e 'f'g", '\\'), ["a", "\"b c\"", "d\\ e", "'f'g"]);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[ -~$\\{}:#%/*?\"']{0,60}") {
            let _ = expand(&text);
        }
    }
}
