//! `WWW-Authenticate`: what a registry asks for (RFC 9110 §11.6.1; distribution's token specification).

use std::collections::BTreeMap;

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// The parameters, names in lower case; the first of a name counts.
    pub parameters: BTreeMap<String, String>,
}

/// A header longer than this says nothing we want to know.
const LIMIT: usize = 16 << 10;

/// Reads one header's value, which may hold several challenges. What cannot be read ends the list.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    if header.len() > LIMIT {
        return found;
    }
    let mut text = Text(header);
    loop {
        text.skip(|b| b == b',' || b.is_ascii_whitespace());
        let scheme = text.token();
        if scheme.is_empty() {
            return found;
        }
        let mut challenge = Challenge { scheme: scheme.to_ascii_lowercase(), parameters: BTreeMap::new() };
        let whole = parameters(&mut text, &mut challenge.parameters);
        found.push(challenge);
        if !whole {
            return found;
        }
    }
}

/// Reads `name=value, …` up to the next scheme. False where the text cannot be read further.
fn parameters(text: &mut Text<'_>, into: &mut BTreeMap<String, String>) -> bool {
    loop {
        let mut ahead = Text(text.0);
        ahead.skip(|b| b == b',' || b.is_ascii_whitespace());
        let name = ahead.token();
        ahead.skip(|b| b == b' ' || b == b'\t');
        if name.is_empty() {
            // The end, or something that is no parameter.
            return ahead.0.is_empty();
        }
        let Some(rest) = ahead.0.strip_prefix('=') else { return true };
        ahead = Text(rest);
        ahead.skip(|b| b == b' ' || b == b'\t');
        let value = match ahead.0.strip_prefix('"') {
            Some(rest) => {
                ahead = Text(rest);
                match ahead.quoted() {
                    Some(value) => value,
                    None => return false,
                }
            }
            None => ahead.token().to_owned(),
        };
        into.entry(name.to_ascii_lowercase()).or_insert(value);
        *text = ahead;
    }
}

struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn skip(&mut self, fits: impl Fn(u8) -> bool) {
        self.0 = self.0.trim_start_matches(|c: char| c.is_ascii() && fits(c as u8));
    }

    fn token(&mut self) -> &'a str {
        let word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
        let end = self.0.find(|c| !word(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token
    }

    /// Reads to the closing quote.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_and_basic_challenges_are_read() {
        let all = parse(
            r#"Bearer realm="https://auth.example/token",service="reg, one",scope="repository:a/b:pull,push", Basic realm="x""#,
        );
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].scheme.as_str(), all[1].scheme.as_str()), ("bearer", "basic"));
        assert_eq!(all[0].parameters["realm"], "https://auth.example/token");
        assert_eq!(all[0].parameters["service"], "reg, one");
        assert_eq!(all[0].parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(all[1].parameters["realm"], "x");
    }

    #[test]
    fn quotes_escapes_and_bare_values() {
        let all = parse(r#"Bearer realm="a\"b", error=insufficient_scope"#);
        assert_eq!(all[0].parameters["realm"], "a\"b");
        assert_eq!(all[0].parameters["error"], "insufficient_scope");
    }

    #[test]
    fn nonsense_gives_nothing_or_what_was_readable() {
        assert!(parse("").is_empty());
        assert!(parse("\"").is_empty());
        assert_eq!(parse("Bearer realm=\"open").len(), 1);
        assert!(parse("Bearer realm=\"open")[0].parameters.is_empty());
        assert!(parse(&"a".repeat(LIMIT + 1)).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_header_ends_and_never_panics(header in "[ -~é]{0,80}") {
            let _ = parse(&header);
        }
    }
}
