//! `.dockerignore`: patterns of what a context leaves out, and Go's path patterns.

/// A pattern, cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: Vec<char>,
    /// Brings back what an earlier pattern took out.
    negated: bool,
}

/// A list of patterns, of which the last that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    list: Vec<Pattern>,
    negations: bool,
}

/// Reads an ignore file: one pattern a line, `#` comments, `!` for exceptions; a leading slash means nothing.
pub fn read(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (negated, rest) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let mut path = if rest.is_empty() { String::new() } else { clean(rest) };
        if path.len() > 1 && path.starts_with('/') {
            path.remove(0);
        }
        patterns.push(if negated { format!("!{path}") } else { path });
    }
    patterns
}

/// The path without doubled slashes and dot segments, as Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

impl Patterns {
    /// Checks and takes patterns.
    ///
    /// # Errors
    /// Docker's texts: a lone `!`, an unfinished class.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, String> {
        let mut list = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            let (negated, text) = match pattern.strip_prefix('!') {
                Some("") => return Err("illegal exclusion pattern: \"!\"".to_owned()),
                Some(rest) => (true, rest.trim_start_matches('/')),
                None => (false, pattern.trim_start_matches('/')),
            };
            go_match(text, "").map_err(|BadPattern| format!("syntax error in pattern: {text}"))?;
            list.push(Pattern { text: text.chars().collect(), negated });
        }
        let negations = list.iter().any(|p| p.negated);
        Ok(Self { list, negations })
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a pattern brings something back, so that an excluded folder must be looked into.
    pub fn has_exceptions(&self) -> bool {
        self.negations
    }

    /// Whether a path (relative, with `/`) is matched, by itself or by a folder above it.
    pub fn matches(&self, path: &str) -> bool {
        let chars: Vec<char> = path.chars().collect();
        let mut prefixes: Vec<usize> = chars.iter().enumerate().filter(|(_, c)| **c == '/').map(|(i, _)| i).collect();
        prefixes.push(chars.len());
        let mut matched = false;
        for pattern in &self.list {
            if pattern.negated != matched {
                continue;
            }
            if prefixes.iter().any(|end| wild(&pattern.text, &chars[..*end])) {
                matched = !pattern.negated;
            }
        }
        matched
    }
}

/// Matches with `*`, `?`, classes, escapes, and `**` for any number of folders. Memory of failed places keeps hostile
/// patterns from taking exponential time.
fn wild(pattern: &[char], text: &[char]) -> bool {
    let mut failed = vec![false; (pattern.len() + 1) * (text.len() + 1)];
    wild_at(pattern, text, 0, 0, &mut failed)
}

fn wild_at(pattern: &[char], text: &[char], mut p: usize, mut t: usize, failed: &mut [bool]) -> bool {
    let key = p * (text.len() + 1) + t;
    if failed[key] {
        return false;
    }
    while p < pattern.len() {
        match pattern[p] {
            '*' if pattern.get(p + 1) == Some(&'*') => {
                let mut rest = p + 2;
                if pattern.get(rest) == Some(&'/') {
                    rest += 1;
                }
                let found = if rest == pattern.len() {
                    true
                } else {
                    let starts = (t..=text.len()).filter(|i| *i == t || text[*i - 1] == '/');
                    let starts: Vec<usize> = starts.collect();
                    starts.into_iter().any(|i| wild_at(pattern, text, rest, i, failed))
                };
                failed[key] = !found;
                return found;
            }
            '*' => {
                let mut end = t;
                loop {
                    if wild_at(pattern, text, p + 1, end, failed) {
                        return true;
                    }
                    if end == text.len() || text[end] == '/' {
                        failed[key] = true;
                        return false;
                    }
                    end += 1;
                }
            }
            '?' if t < text.len() && text[t] != '/' => (p, t) = (p + 1, t + 1),
            '[' if t < text.len() => match class(&pattern[p..], text[t]) {
                Some((true, n)) => (p, t) = (p + n, t + 1),
                _ => break,
            },
            '\\' if p + 1 < pattern.len() && text.get(t) == Some(&pattern[p + 1]) => (p, t) = (p + 2, t + 1),
            c if c != '\\' && c != '?' && text.get(t) == Some(&c) => (p, t) = (p + 1, t + 1),
            _ => break,
        }
    }
    let found = p == pattern.len() && t == text.len();
    failed[key] = !found;
    found
}

/// Whether a character is in a class, and the class's length; `None` if the class is malformed.
fn class(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    if negated {
        at += 1;
    }
    let (mut found, mut count) = (false, 0);
    let one = |at: &mut usize| -> Option<char> {
        let mut c = *pattern.get(*at)?;
        if c == '\\' {
            *at += 1;
            c = *pattern.get(*at)?;
        }
        *at += 1;
        Some(c)
    };
    loop {
        if pattern.get(at) == Some(&']') && count > 0 {
            return Some((found != negated, at + 1));
        }
        let low = one(&mut at)?;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            at += 1;
            high = one(&mut at)?;
        }
        found |= low <= c && c <= high;
        count += 1;
    }
}

/// A pattern with an unfinished class or escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Go's `path.Match`: the wildcards of COPY's sources.
///
/// # Errors
/// [`BadPattern`].
pub fn go_match(pattern: &str, text: &str) -> Result<bool, BadPattern> {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            '[' => at += class(&pattern[at..], 'x').ok_or(BadPattern)?.1,
            '\\' if at + 1 == pattern.len() => return Err(BadPattern),
            '\\' => at += 2,
            _ => at += 1,
        }
    }
    // A doubled star is nothing special here.
    let mut single: Vec<char> = Vec::with_capacity(pattern.len());
    for (i, c) in pattern.iter().enumerate() {
        if *c == '*' && i > 0 && pattern[i - 1] == '*' && single.last() == Some(&'*') {
            continue;
        }
        single.push(*c);
    }
    Ok(wild(&single, &text.chars().collect::<Vec<_>>()))
}

/// Whether a path has wildcards.
pub fn has_wildcard(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_exclude_what_docker_excludes() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["*.md"], "a.md", true),
            (&["*.md"], "d/a.md", false),
            (&["**/*.md"], "a.md", true),
            (&["**/*.md"], "d/e/a.md", true),
            (&["*/temp*"], "x/temporary", true),
            (&["temp?"], "tempa", true),
            (&["temp?"], "temp", false),
            (&["*.md", "!README.md"], "README.md", false),
            (&["*.md", "!README*.md", "README-s.md"], "README-s.md", true),
            (&["dir"], "dir/a/b", true),
            (&["dir", "!dir/a"], "dir/a/b", false),
            (&["dir/**"], "dir", false),
            (&["dir/**"], "dir/x", true),
            (&["/dir"], "dir", true),
            (&["a/../b"], "b", true),
            (&["[a-c]x"], "bx", true),
            (&["[^a-c]x"], "bx", false),
            (&["a\\*"], "a*", true),
            (&["a\\*"], "ab", false),
            (&["**"], "any/thing", true),
            (&["a/**/b"], "a/b", true),
            (&["a/**/b"], "a/x/y/b", true),
        ];
        for (patterns, path, expected) in cases {
            let matcher = Patterns::new(patterns).expect("valid");
            assert_eq!(matcher.matches(path), *expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn ignore_files_are_read() {
        assert_eq!(read("# c\n\n /a/b/ \n!x\n #y\n."), ["a/b", "!x", "#y", "."]);
        assert!(Patterns::new(&["!"]).is_err());
        assert!(Patterns::new(&["[a"]).is_err());
    }

    #[test]
    fn hostile_patterns_take_polynomial_time() {
        let pattern = "*a".repeat(40);
        let matcher = Patterns::new(&[pattern, "**/a".repeat(40)]).expect("valid");
        assert!(!matcher.matches(&"b/".repeat(200)));
        assert!(!matcher.matches(&"a".repeat(39)));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_patterns_never_panic(pattern in "[a-c*?\\[\\]\\\\!/^-]{0,20}", path in "[a-c/]{0,20}") {
            if let Ok(patterns) = Patterns::new(&[&pattern]) {
                let _ = patterns.matches(&path);
            }
            let _ = go_match(&pattern, &path);
            let _ = has_wildcard(&pattern);
        }
    }
}
