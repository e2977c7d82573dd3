//! `--name=value` between an instruction and its arguments.

/// The flags of one instruction, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<(String, Option<String>)>);

impl Flags {
    /// Takes the flags off the start of an instruction's arguments; returns them and the rest.
    pub fn take(text: &str, escape: char) -> (Self, &str) {
        let mut found = Vec::new();
        let mut rest = text.trim_start();
        while rest.starts_with("--") {
            let (word, end) = word(rest, escape);
            rest = rest[end..].trim_start();
            if word == "--" {
                break;
            }
            let flag = &word[2..];
            found.push(match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            });
        }
        (Self(found), rest)
    }

    /// Refuses flags that the instruction does not have, and those that are given twice and may not be.
    pub(crate) fn check(&self, known: &[&str], repeated: &[&str]) -> Result<(), String> {
        for (i, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) && !repeated.contains(&name.as_str()) {
                let hint = crate::stage::nearest(name, known.iter().chain(repeated).copied());
                let hint = hint.map(|h| format!(" (did you mean {h}?)")).unwrap_or_default();
                return Err(format!("unknown flag: --{name}{hint}"));
            }
            if !repeated.contains(&name.as_str()) && self.0[..i].iter().any(|(n, _)| n == name) {
                return Err(format!("duplicate flag specified: --{name}"));
            }
        }
        Ok(())
    }

    /// The value of a flag that needs one.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.iter().find(|(n, _)| n == name) {
            None => Ok(None),
            Some((_, Some(value))) => Ok(Some(value.clone())),
            Some((_, None)) => Err(format!("missing a value on flag: --{name}")),
        }
    }

    /// All values of a flag that may be repeated.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, String> {
        let all = self.0.iter().filter(|(n, _)| n == name);
        all.map(|(_, v)| v.clone().ok_or_else(|| format!("missing a value on flag: --{name}"))).collect()
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        match self.0.iter().find(|(n, _)| n == name) {
            None => Ok(None),
            Some((_, None)) => Ok(Some(true)),
            Some((_, Some(value))) => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(format!("expecting boolean value for flag {name}, not: {value}")),
            },
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One word from the start of the text with quotes and escapes undone, and where it ends.
fn word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, at),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(q) if c == q => quote = None,
            _ if c == escape && quote != Some('\'') => match chars.next() {
                Some((_, c)) => word.push(c),
                None => word.push(c),
            },
            _ => word.push(c),
        }
    }
    (word, text.len())
}
