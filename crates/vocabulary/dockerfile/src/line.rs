//! From bytes to logical lines: directives, comments, continuations and the bodies of heredocs.

use crate::error::DockerfileError;
use crate::instruction::Heredoc;

/// Lines of the file, counted from 1, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first line.
    pub first: usize,
    /// The last line.
    pub last: usize,
}

/// Parser directives, which stand before everything else in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`, with its line.
    pub syntax: Option<(String, Range)>,
    /// `# escape=`: a backslash, or a backtick.
    pub escape: char,
    /// `# check=`, with its line.
    pub check: Option<(String, Range)>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// One instruction as it is written, continuations joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The joined text.
    pub text: String,
    /// Where it stands, heredocs included.
    pub range: Range,
    /// Bodies that follow it.
    pub heredocs: Vec<Heredoc>,
    /// The comment lines right above, without `#`.
    pub comments: Vec<String>,
    /// Whether an empty line was among the continuations, and the line after which.
    pub empty_continuation: bool,
}

/// The largest logical line, as a bound on memory.
const LINE_LIMIT: usize = 16 << 20;

/// Splits a file. A byte order mark is passed over; bytes that are not UTF-8 become replacement characters.
///
/// # Errors
/// [`DockerfileError`] with Docker's texts.
pub fn logical_lines(bytes: &[u8]) -> Result<(Directives, Vec<Line>), DockerfileError> {
    let text = text_of(bytes);
    let raw = raw_lines(&text);
    let directives = directives(&raw)?;
    let mut lines = Vec::new();
    let mut reader = Reader { raw: &raw, next: 0, escape: directives.escape };
    let mut comments = Vec::new();
    while let Some(line) = reader.take(&mut comments)? {
        lines.push(line);
    }
    Ok((directives, lines))
}

impl Directives {
    /// Reads only the directives of a file, which need not be a Dockerfile: its front end may be another.
    ///
    /// # Errors
    /// A directive stands twice, or has a value that it cannot have.
    pub fn of(bytes: &[u8]) -> Result<Self, DockerfileError> {
        directives(&raw_lines(&text_of(bytes)))
    }
}

fn text_of(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

fn raw_lines(text: &str) -> Vec<&str> {
    text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l)).collect()
}

struct Reader<'a> {
    raw: &'a [&'a str],
    next: usize,
    escape: char,
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

impl<'a> Reader<'a> {
    fn read(&mut self) -> Option<&'a str> {
        let line = self.raw.get(self.next).copied();
        self.next += 1;
        line
    }

    fn take(&mut self, comments: &mut Vec<String>) -> Result<Option<Line>, DockerfileError> {
        let first = loop {
            let Some(line) = self.read() else { return Ok(None) };
            if is_comment(line) {
                comments.push(line.trim_start()[1..].to_owned());
            } else if line.trim().is_empty() {
                comments.clear();
            } else {
                break line;
            }
        };
        let start = self.next;
        let mut line = Line { comments: std::mem::take(comments), ..Line::default() };
        let (text, mut more) = self.continued(first.trim_start());
        line.text = text.to_owned();
        while more {
            let Some(next) = self.read() else {
                self.next -= 1;
                break;
            };
            if is_comment(next) {
                continue;
            }
            if next.trim().is_empty() {
                line.empty_continuation |= self.next < self.raw.len() || !next.is_empty();
                continue;
            }
            let (text, again) = self.continued(next);
            line.text.push_str(text);
            more = again;
            if line.text.len() > LINE_LIMIT {
                let at = Range { first: start, last: self.next };
                return Err(DockerfileError::At { at, text: "bufio.Scanner: token too long".to_owned() });
            }
        }
        line.text.truncate(line.text.trim_end().len());
        self.heredocs(&mut line, start)?;
        line.range = Range { first: start, last: self.next.min(self.raw.len()).max(start) };
        Ok(Some(line))
    }

    /// The line without its continuation mark, and whether it had one: an escape, not itself escaped, with nothing but
    /// blanks after it.
    fn continued(&self, line: &'a str) -> (&'a str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            _ => (line, false),
        }
    }

    fn heredocs(&mut self, line: &mut Line, start: usize) -> Result<(), DockerfileError> {
        let mut words = line.text.split_whitespace();
        let mut keyword = words.next().unwrap_or_default().to_ascii_lowercase();
        if keyword == "onbuild" {
            keyword = words.next().unwrap_or_default().to_ascii_lowercase();
        }
        if !matches!(keyword.as_str(), "run" | "copy" | "add") {
            return Ok(());
        }
        for mut heredoc in openings(&line.text, self.escape) {
            loop {
                let Some(next) = self.read() else {
                    let at = Range { first: start, last: self.raw.len() };
                    return Err(DockerfileError::At { at, text: "unterminated heredoc".to_owned() });
                };
                let body = if heredoc.chomp { next.trim_start_matches('\t') } else { next };
                if body == heredoc.name {
                    break;
                }
                heredoc.content.push_str(body);
                heredoc.content.push('\n');
            }
            line.heredocs.push(heredoc);
        }
        Ok(())
    }
}

/// Finds `<<NAME`, `<<-NAME`, `<<"NAME"` among the words of a line.
fn openings(text: &str, escape: char) -> Vec<Heredoc> {
    let words = crate::words::split_words(text, escape);
    words.iter().filter_map(|word| opening(word)).collect()
}

/// Reads one word as the start of a heredoc: an optional descriptor number, `<<`, `-` for tabs to be taken away, and a
/// name, in which quotes mean that the body is taken as it stands.
pub(crate) fn opening(word: &str) -> Option<Heredoc> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let descriptor = if digits == 0 { 0 } else { word[..digits].parse().ok()? };
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains(['<', '>']) {
        return None;
    }
    let quoted = rest.contains(['"', '\'']);
    let name: String = match (rest.chars().next(), rest.chars().last()) {
        (Some(a @ ('"' | '\'')), Some(b)) if a == b && rest.len() > 2 => rest[1..rest.len() - 1].to_owned(),
        _ if quoted => rest.replace(['"', '\''], ""),
        _ => rest.to_owned(),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    Some(Heredoc { name, content: String::new(), expand: !quoted, chomp, descriptor })
}

/// Reads `# key=value` lines at the top of the file, until something else comes.
fn directives(raw: &[&str]) -> Result<Directives, DockerfileError> {
    let mut found = Directives::default();
    let mut seen: Vec<String> = Vec::new();
    // `#!` may stand first, so that a Dockerfile can be run as a script.
    let shebang = usize::from(raw.first().is_some_and(|l| l.starts_with("#!")));
    for (i, line) in raw.iter().enumerate().skip(shebang) {
        let Some(rest) = line.trim_start().strip_prefix('#') else { break };
        let Some((key, value)) = rest.split_once('=') else { break };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let at = Range { first: i + 1, last: i + 1 };
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric()) || value.is_empty() {
            break;
        }
        let fail = |text: String| Err(DockerfileError::At { at, text });
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        if seen.contains(&key) {
            return fail(format!("only one {key} parser directive can be used"));
        }
        match key.as_str() {
            "syntax" => found.syntax = Some((value.to_owned(), at)),
            "check" => found.check = Some((value.to_owned(), at)),
            _ => match value {
                "\\" => found.escape = '\\',
                "`" => found.escape = '`',
                other => {
                    return fail(format!("invalid escape token '{other}' does not match ` or \\"));
                }
            },
        }
        seen.push(key);
    }
    if found.syntax.is_none() {
        found.syntax = foreign_syntax(raw);
    }
    Ok(found)
}

/// `// syntax=` and a JSON object's `syntax` also name the front end, for files that are no Dockerfiles.
fn foreign_syntax(raw: &[&str]) -> Option<(String, Range)> {
    let shebang = usize::from(raw.first().is_some_and(|l| l.starts_with("#!")));
    for (i, line) in raw.iter().enumerate().skip(shebang) {
        let rest = line.trim_start().strip_prefix("//")?;
        let (key, value) = rest.split_once('=')?;
        if key.trim().eq_ignore_ascii_case("syntax") {
            return Some((value.trim().to_owned(), Range { first: i + 1, last: i + 1 }));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<String> {
        logical_lines(file.as_bytes()).expect("valid").1.into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn continuations_join_and_comments_between_them_are_dropped() {
        assert_eq!(texts("RUN a \\\n# note\n  b \\  \n\n c\n"), ["RUN a   b  c"]);
        assert_eq!(texts("# escape=`\nRUN a `\nb\nRUN c\\\n"), ["RUN a b", "RUN c\\"]);
        assert_eq!(texts("RUN a\\\\\nRUN b"), ["RUN a\\\\", "RUN b"]);
    }

    #[test]
    fn heredocs_take_their_bodies() {
        let (_, lines) = logical_lines(b"RUN <<EOF cat <<-\"E2\"\na\nEOF\n\tb\n\tE2\nRUN x").expect("valid");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].heredocs[0].content, "a\n");
        assert!(lines[0].heredocs[0].expand);
        assert_eq!(lines[0].heredocs[1].content, "b\n");
        assert!(!lines[0].heredocs[1].expand);
        assert_eq!(lines[0].range, Range { first: 1, last: 5 });
        let error = logical_lines(b"COPY <<E /x\na").expect_err("no end").to_string();
        assert_eq!(error, "dockerfile parse error on line 1: unterminated heredoc");
    }

    #[test]
    fn directives_stand_first_and_once() {
        let (d, _) = logical_lines(b"#syntax = a/b:c\n# escape=`\n# check=skip=all\nFROM x").expect("valid");
        assert_eq!(d.syntax.expect("there").0, "a/b:c");
        assert_eq!(d.escape, '`');
        assert_eq!(d.check.expect("there").0, "skip=all");
        let (d, _) = logical_lines(b"# about\n# escape=`\nFROM x").expect("valid");
        assert_eq!(d.escape, '\\');
        assert!(logical_lines(b"# escape=x\n").is_err());
        assert!(logical_lines(b"# escape=`\n# escape=`\n").is_err());
    }
}
