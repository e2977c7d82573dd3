//! Lines of a source with a mark at those that an error or a warning is about.

/// Lines of a file around those that are meant, marked.
pub fn excerpt(name: &str, text: &[u8], first: usize, last: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let rule = "--------------------\n";
    let mut out = format!("{name}:{first}\n{rule}");
    let (from, to) = (first.saturating_sub(2).max(1), (last + 2).min(lines.len()));
    for number in from..=to {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        out.push_str(&format!(" {number:3} | {mark} {}\n", lines.get(number - 1).unwrap_or(&"")));
    }
    out.push_str(rule);
    out
}
